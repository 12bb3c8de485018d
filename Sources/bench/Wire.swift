internal import CHiredis
internal import Foundation

/// A plain blocking connection: hiredis and nothing else, the least a client can be.
final class Wire {
    private let context: UnsafeMutablePointer<redisContext>

    init(_ socket: String) throws {
        guard let context = redisConnectUnix(socket) else { throw NotMeasured("out of memory") }
        self.context = context
        if context.pointee.err != 0 { throw NotMeasured("no connection to \(socket)") }
    }

    deinit { redisFree(context) }

    /// Puts a command behind those that are to be sent.
    func append(_ command: [String]) {
        var words = command.map { UnsafePointer<CChar>(strdup($0)) }
        redisAppendCommandArgv(context, Int32(words.count), &words, nil)
        for word in words { free(UnsafeMutablePointer(mutating: word)) }
    }

    func flush() {
        var isDone: Int32 = 0
        while isDone == 0, redisBufferWrite(context, &isDone) == REDIS_OK {}
    }

    /// Sends what is to be sent, and reads the next reply. - Throws: the server's error, and a broken connection.
    func next<Value>(_ read: (redisReply) -> Value) throws -> Value {
        var pointer: UnsafeMutableRawPointer?
        guard redisGetReply(context, &pointer) == REDIS_OK, let pointer else { throw NotMeasured("Redis went away") }
        defer { freeReplyObject(pointer) }
        let reply = pointer.assumingMemoryBound(to: redisReply.self).pointee
        if reply.type == REDIS_REPLY_ERROR { throw NotMeasured("Redis: \(reply.text)") }
        return read(reply)
    }

    /// Sends a command and reads its reply.
    @discardableResult
    func call<Value>(_ command: [String], _ read: (redisReply) -> Value = { _ in }) throws -> Value {
        append(command)
        return try next(read)
    }
}

extension redisReply {
    var text: String { String(decoding: UnsafeRawBufferPointer(start: str, count: len), as: UTF8.self) }

    /// An element, or an empty reply where there is none.
    subscript(_ index: Int) -> redisReply {
        index < elements ? element[index]?.pointee ?? redisReply() : redisReply()
    }
}
