internal import CHiredis

/// hiredis' incremental parser, owned and freed here. Its replies become our values before they leave.
final class ReplyReader {
    private let reader = redisReaderCreate()

    deinit { redisReaderFree(reader) }

    /// Takes bytes up for `next`, which throws if they cannot be kept.
    func feed(_ bytes: UnsafeRawBufferPointer) { redisReaderFeed(reader, bytes.baseAddress, bytes.count) }

    /// The next whole reply, or nil until more bytes come. - Throws: `malformedReply`.
    func next() throws(RedisError) -> RedisValue? {
        var object: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &object) == REDIS_OK else {
            let text = reader.map { reader in
                withUnsafeBytes(of: reader.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            }
            throw RedisError(.malformedReply, "the answer is not RESP2: \(text ?? "out of memory")")
        }
        guard let object else { return nil }
        defer { freeReplyObject(object) }
        return RedisValue(object.assumingMemoryBound(to: redisReply.self).pointee)
    }
}

extension RedisValue {
    // A batch of results brings hundreds of them.
    private static let (ok, queued) = (Array("OK".utf8), Array("QUEUED".utf8))

    fileprivate init(_ reply: redisReply) {
        let bytes = UnsafeRawBufferPointer(start: reply.str, count: reply.len)
        switch reply.type {
        case REDIS_REPLY_NIL: self = .null
        case REDIS_REPLY_INTEGER: self = .integer(reply.integer)
        case REDIS_REPLY_ARRAY:
            let elements = UnsafeBufferPointer(start: reply.element, count: reply.elements)
            self = .array(elements.map { $0.map { RedisValue($0.pointee) } ?? .null })
        case REDIS_REPLY_ERROR:
            let text = String(decoding: bytes, as: UTF8.self)
            self = .error(RedisError(.server(String(text.prefix { $0 != " " })), text))
        case REDIS_REPLY_STATUS where bytes.elementsEqual(Self.ok): self = .bytes(Self.ok)
        case REDIS_REPLY_STATUS where bytes.elementsEqual(Self.queued): self = .bytes(Self.queued)
        default: self = .bytes([UInt8](bytes))
        }
    }
}
