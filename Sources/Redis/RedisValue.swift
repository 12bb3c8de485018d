internal import CHiredis

/// One reply of Redis (RESP2). A server's error is a value, so that one failed command of a pipeline is seen as such.
package enum RedisValue: Sendable, Equatable {
    case null
    case integer(Int64)
    /// A bulk or a simple string: any bytes.
    case bytes([UInt8])
    case array([RedisValue])
    case error(RedisError)

    /// The string as text, bytes that are not UTF-8 replaced; nil for every other shape.
    package var text: String? {
        if case .bytes(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
    }
    package var int: Int? { if case .integer(let number) = self { Int(number) } else { nil } }
    package var array: [RedisValue]? { if case .array(let values) = self { values } else { nil } }
    package var error: RedisError? { if case .error(let error) = self { error } else { nil } }

    package func get() throws(RedisError) -> RedisValue {
        if case .error(let error) = self { throw error } else { self }
    }
}

/// hiredis' incremental parser, owned and freed here.
struct ReplyReader: ~Copyable {
    private let reader: UnsafeMutablePointer<redisReader>? = redisReaderCreate()

    deinit { redisReaderFree(reader) }

    func feed(_ bytes: UnsafeRawBufferPointer) throws(RedisError) {
        guard redisReaderFeed(reader, bytes.baseAddress, bytes.count) == REDIS_OK else { throw failure }
    }

    /// The next whole reply, or nil until more bytes come.
    func next() throws(RedisError) -> RedisValue? {
        var reply: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &reply) == REDIS_OK else { throw failure }
        guard let reply else { return nil }
        defer { freeReplyObject(reply) }
        return Self.value(reply.assumingMemoryBound(to: redisReply.self).pointee)
    }

    private var failure: RedisError {
        let text = reader.map { reader in
            withUnsafeBytes(of: reader.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        return RedisError(.malformedReply, "the answer is not RESP2: \(text ?? "out of memory")")
    }

    private static let (ok, queued) = (RedisValue.bytes(Array("OK".utf8)), RedisValue.bytes(Array("QUEUED".utf8)))

    private static func value(_ reply: redisReply) -> RedisValue {
        switch reply.type {
        case REDIS_REPLY_INTEGER: return .integer(reply.integer)
        case REDIS_REPLY_NIL: return .null
        case REDIS_REPLY_ARRAY:
            return .array((0..<reply.elements).map { reply.element[$0].map { value($0.pointee) } ?? .null })
        // OK and QUEUED: a batch of results brings hundreds of them.
        case REDIS_REPLY_STATUS where reply.len == 2 && reply.str[0] == 0x4f: return ok
        case REDIS_REPLY_STATUS where reply.len == 6 && reply.str[0] == 0x51: return queued
        default:
            let bytes = UnsafeRawBufferPointer(start: reply.str, count: Int(reply.len))
            guard reply.type == REDIS_REPLY_ERROR else { return .bytes([UInt8](bytes)) }
            let text = String(decoding: bytes, as: UTF8.self)
            return .error(RedisError(.server(String(text.prefix { $0 != " " })), text))
        }
    }
}
