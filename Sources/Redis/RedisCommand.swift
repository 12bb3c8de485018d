package import NIOCore

/// One argument of a command: text, whole number or any bytes.
package enum RedisArgument: Sendable, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
    case text(String), int(Int), bytes([UInt8])

    package init(stringLiteral value: String) { self = .text(value) }
    package init(integerLiteral value: Int) { self = .int(value) }
}

/// A command's name and arguments, e.g. `["SET", .text(key), .bytes(value), "EX", 60]`. Arguments are binary-safe.
package struct RedisCommand: Sendable, ExpressibleByArrayLiteral {
    package let arguments: [RedisArgument]

    package init(arrayLiteral elements: RedisArgument...) { arguments = elements }
    package init(_ arguments: [RedisArgument]) { self.arguments = arguments }

    package static func + (left: RedisCommand, right: [String]) -> RedisCommand {
        RedisCommand(left.arguments + right.map(RedisArgument.text))
    }

    /// Appends the command in RESP2, an array of bulk strings.
    package func encode(into buffer: inout ByteBuffer) {
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: 24) { $0.put("*", arguments.count) }
        for argument in arguments {
            switch argument {
            case .text(var text): text.withUTF8 { buffer.writeBulk(UnsafeRawBufferPointer($0)) }
            case .int(let number):
                var text = String(number)
                text.withUTF8 { buffer.writeBulk(UnsafeRawBufferPointer($0)) }
            case .bytes(let bytes): bytes.withUnsafeBytes { buffer.writeBulk($0) }
            }
        }
    }
}

// Byte by byte into the buffer's memory: there are a dozen of these a job, and each write of its own costs more than what
// it writes.
extension ByteBuffer {
    fileprivate mutating func writeBulk(_ bytes: UnsafeRawBufferPointer) {
        writeWithUnsafeMutableBytes(minimumWritableBytes: bytes.count + 26) { target in
            let head = target.put("$", bytes.count)
            UnsafeMutableRawBufferPointer(rebasing: target[head...]).copyMemory(from: bytes)
            target.putLineEnd(head + bytes.count)
            return head + bytes.count + 2
        }
    }
}

extension UnsafeMutableRawBufferPointer {
    /// Begins the buffer with a mark, a number and a line's end. - Returns: how many bytes that took.
    fileprivate func put(_ mark: Unicode.Scalar, _ number: Int) -> Int {
        self[0] = UInt8(ascii: mark)
        var (length, rest) = (1, number)
        while rest >= 10 { (length, rest) = (length + 1, rest / 10) }
        rest = number
        for index in stride(from: length, to: 0, by: -1) {
            self[index] = UInt8(ascii: "0") + UInt8(rest % 10)
            rest /= 10
        }
        putLineEnd(length + 1)
        return length + 3
    }

    fileprivate func putLineEnd(_ index: Int) {
        self[index] = UInt8(ascii: "\r")
        self[index + 1] = UInt8(ascii: "\n")
    }
}

/// Something that carries commands to Redis: a connection, or a client that keeps one up.
package protocol RedisCalls: Sendable {
    /// Sends the commands in one go. The result has one value a command, in order; a command that was not answered has
    /// a `connectionLost` or `timedOut` error in its place.
    nonisolated(nonsending) func pipeline(_ commands: [RedisCommand], timeout: Duration) async -> [RedisValue]
}

extension RedisCalls {
    package nonisolated(nonsending) func pipeline(_ commands: [RedisCommand]) async -> [RedisValue] {
        await pipeline(commands, timeout: .seconds(5))
    }

    /// Sends one command. - Throws: the server's error, `connectionLost` or `timedOut`.
    package nonisolated(nonsending) func send(
        _ command: RedisCommand, timeout: Duration = .seconds(5)
    ) async throws(RedisError) -> RedisValue {
        try await pipeline([command], timeout: timeout)[0].get()
    }
}
