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

/// hiredis' incremental parser, owned and freed here. It builds our values itself: its own reply objects would cost a
/// dozen allocations a job, only to be copied.
struct ReplyReader: ~Copyable {
    private let reader: UnsafeMutablePointer<redisReader>?
    private let functions = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
    private let reply = ReplyBuilder()

    init() {
        functions.initialize(
            to: redisReplyObjectFunctions(
                createString: { task, bytes, count in
                    ReplyBuilder.add(task) {
                        .string(UnsafeRawBufferPointer(start: bytes, count: count), type: task?.pointee.type)
                    }
                },
                createArray: { task, count in ReplyBuilder.begin(task, Int(count)) },
                createInteger: { task, number in ReplyBuilder.add(task) { .integer(number) } },
                createNil: { task in ReplyBuilder.add(task) { .null } },
                freeObject: { _ in }))
        reader = redisReaderCreateWithFunctions(functions)
        reader?.pointee.privdata = Unmanaged.passUnretained(reply).toOpaque()
    }

    deinit {
        redisReaderFree(reader)
        functions.deallocate()
    }

    func feed(_ bytes: UnsafeRawBufferPointer) throws(RedisError) {
        guard redisReaderFeed(reader, bytes.baseAddress, bytes.count) == REDIS_OK else { throw failure }
    }

    /// The next whole reply, or nil until more bytes come.
    func next() throws(RedisError) -> RedisValue? {
        var isWhole: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &isWhole) == REDIS_OK else { throw failure }
        return isWhole == nil ? nil : reply.take()
    }

    private var failure: RedisError {
        let text = reader.map { reader in
            withUnsafeBytes(of: reader.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        return RedisError(.malformedReply, "the answer is not RESP2: \(text ?? "out of memory")")
    }
}

/// A reply as far as it has come.
private final class ReplyBuilder {
    /// The arrays that miss elements, each within the one before.
    private var open: [(elements: [RedisValue], count: Int)] = []
    private var whole: RedisValue?
    /// The parser asks only whether there is an object.
    private static var object: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: 1) }

    static func add(_ task: UnsafePointer<redisReadTask>?, _ value: () -> RedisValue) -> UnsafeMutableRawPointer? {
        guard let data = task?.pointee.privdata else { return nil }
        Unmanaged<ReplyBuilder>.fromOpaque(data).takeUnretainedValue().add(value())
        return object
    }

    static func begin(_ task: UnsafePointer<redisReadTask>?, _ count: Int) -> UnsafeMutableRawPointer? {
        guard count > 0, let data = task?.pointee.privdata else { return add(task) { .array([]) } }
        var elements: [RedisValue] = []
        // The count is the server's word, and may be any.
        elements.reserveCapacity(min(count, 1024))
        Unmanaged<ReplyBuilder>.fromOpaque(data).takeUnretainedValue().open.append((elements, count))
        return object
    }

    private func add(_ value: RedisValue) {
        var value = value
        while !open.isEmpty {
            open[open.count - 1].elements.append(value)
            guard let last = open.last, last.elements.count == last.count else { return }
            value = .array(last.elements)
            open.removeLast()
        }
        whole = value
    }

    func take() -> RedisValue? {
        defer { whole = nil }
        return whole
    }
}

extension RedisValue {
    private static let (ok, queued) = (RedisValue.bytes(Array("OK".utf8)), RedisValue.bytes(Array("QUEUED".utf8)))

    fileprivate static func string(_ bytes: UnsafeRawBufferPointer, type: Int32?) -> RedisValue {
        if type == REDIS_REPLY_ERROR {
            let text = String(decoding: bytes, as: UTF8.self)
            return .error(RedisError(.server(String(text.prefix { $0 != " " })), text))
        }
        // A batch of results brings hundreds of them.
        if type == REDIS_REPLY_STATUS, bytes.elementsEqual("OK".utf8) { return ok }
        if type == REDIS_REPLY_STATUS, bytes.elementsEqual("QUEUED".utf8) { return queued }
        return .bytes([UInt8](bytes))
    }
}
