internal import CHiredis
internal import Foundation

/// A plain blocking connection: hiredis and nothing else, the least a client can be.
final class Wire {
    private let context: UnsafeMutablePointer<redisContext>
    private var arguments: [UnsafePointer<CChar>?] = []
    private var lengths: [Int] = []

    init(_ socket: String) throws {
        guard let context = redisConnectUnix(socket) else { throw NotMeasured("out of memory") }
        self.context = context
        if context.pointee.err != 0 { throw NotMeasured("no connection to \(socket)") }
    }

    deinit { redisFree(context) }

    /// Begins a command, or adds to it. What is pointed to is copied by `end`.
    func add(_ bytes: UnsafePointer<CChar>?, _ count: Int) {
        arguments.append(bytes)
        lengths.append(count)
    }

    func add(_ texts: StaticString...) {
        for text in texts {
            add(UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self), text.utf8CodeUnitCount)
        }
    }

    /// Puts the command behind those that are to be sent.
    func end() {
        redisAppendCommandArgv(context, Int32(arguments.count), &arguments, lengths)
        arguments.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
    }

    func flush() {
        var isDone: Int32 = 0
        while isDone == 0, redisBufferWrite(context, &isDone) == REDIS_OK {}
    }

    /// Sends what is to be sent, and reads the next reply. - Throws: the server's error, and a broken connection.
    @discardableResult
    func next<Value>(_ read: (redisReply) -> Value) throws -> Value {
        var pointer: UnsafeMutableRawPointer?
        guard redisGetReply(context, &pointer) == REDIS_OK, let pointer else { throw NotMeasured("Redis went away") }
        defer { freeReplyObject(pointer) }
        let reply = pointer.assumingMemoryBound(to: redisReply.self).pointee
        if reply.type == REDIS_REPLY_ERROR { throw NotMeasured("Redis: \(reply.text)") }
        return read(reply)
    }

    @discardableResult
    func call<Value>(_ command: [String], _ read: (redisReply) -> Value) throws -> Value {
        let copies = command.map { strdup($0) }
        for (copy, text) in zip(copies, command) { add(copy, text.utf8.count) }
        end()
        for copy in copies { free(copy) }
        return try next(read)
    }

    @discardableResult
    func call(_ command: String...) throws -> Int { try call(command) { Int($0.integer) } }
}

extension redisReply {
    var text: String { String(decoding: UnsafeRawBufferPointer(start: str, count: Int(len)), as: UTF8.self) }

    subscript(_ index: Int) -> redisReply {
        index < elements ? element[index]?.pointee ?? redisReply() : redisReply()
    }
}
