internal import CHiredis

/// hiredis' incremental parser, owned and freed here. It builds our values itself: its own reply objects would cost a
/// dozen allocations a job, only to be copied.
final class ReplyReader {
    // Written here only, before the first reader has them.
    nonisolated(unsafe) private static let functions = {
        let functions = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        functions.initialize(
            to: redisReplyObjectFunctions(
                createString: { task, bytes, count in
                    let bytes = UnsafeRawBufferPointer(start: bytes, count: count)
                    return ReplyReader.add(.string(bytes, type: task?.pointee.type), task)
                },
                createArray: { task, count in ReplyReader.begin(Int(count), task) },
                createInteger: { task, number in ReplyReader.add(.integer(number), task) },
                createNil: { task in ReplyReader.add(.null, task) },
                freeObject: { _ in }))
        return functions
    }()

    private let reader = redisReaderCreateWithFunctions(functions)
    /// The arrays that miss elements, each within the one before.
    private var open: [[RedisValue]] = []
    private var whole: RedisValue?

    init() { reader?.pointee.privdata = Unmanaged.passUnretained(self).toOpaque() }

    deinit { redisReaderFree(reader) }

    /// Takes bytes up for `next`, which throws if they cannot be kept.
    func feed(_ bytes: UnsafeRawBufferPointer) { redisReaderFeed(reader, bytes.baseAddress, bytes.count) }

    /// The next whole reply, or nil until more bytes come. - Throws: `malformedReply`.
    func next() throws(RedisError) -> RedisValue? {
        guard redisReaderGetReply(reader, nil) == REDIS_OK else {
            let text = reader.map { reader in
                withUnsafeBytes(of: reader.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            }
            throw RedisError(.malformedReply, "the answer is not RESP2: \(text ?? "out of memory")")
        }
        return whole.take()
    }

    /// Puts a value where the task stands. - Returns: the parser asks only whether there is an object.
    private static func add(_ value: RedisValue, _ task: UnsafePointer<redisReadTask>?) -> UnsafeMutableRawPointer? {
        guard var task, let object = task.pointee.privdata else { return nil }
        let reader = Unmanaged<ReplyReader>.fromOpaque(object).takeUnretainedValue()
        var value = value
        while let parent = task.pointee.parent {
            reader.open[reader.open.count - 1].append(value)
            guard task.pointee.idx + 1 == parent.pointee.elements else { return object }
            value = .array(reader.open.removeLast())
            task = UnsafePointer(parent)
        }
        reader.whole = value
        return object
    }

    private static func begin(_ count: Int, _ task: UnsafePointer<redisReadTask>?) -> UnsafeMutableRawPointer? {
        guard count > 0, let object = task?.pointee.privdata else { return add(.array([]), task) }
        var elements: [RedisValue] = []
        // The count is the server's word, and may be any.
        elements.reserveCapacity(min(count, 1024))
        Unmanaged<ReplyReader>.fromOpaque(object).takeUnretainedValue().open.append(elements)
        return object
    }
}

extension RedisValue {
    // A batch of results brings hundreds of them.
    private static let (ok, queued) = (Array("OK".utf8), Array("QUEUED".utf8))

    fileprivate static func string(_ bytes: UnsafeRawBufferPointer, type: Int32?) -> RedisValue {
        if type == REDIS_REPLY_ERROR {
            let text = String(decoding: bytes, as: UTF8.self)
            return .error(RedisError(.server(String(text.prefix { $0 != " " })), text))
        }
        if type == REDIS_REPLY_STATUS, bytes.elementsEqual(ok) { return .bytes(ok) }
        if type == REDIS_REPLY_STATUS, bytes.elementsEqual(queued) { return .bytes(queued) }
        return .bytes([UInt8](bytes))
    }
}
