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
        buffer.writeLength("*", arguments.count)
        for argument in arguments {
            switch argument {
            case .text(let text):
                buffer.writeLength("$", text.utf8.count)
                buffer.writeString(text)
            case .int(let number):
                let text = String(number)
                buffer.writeLength("$", text.utf8.count)
                buffer.writeString(text)
            case .bytes(let bytes):
                buffer.writeLength("$", bytes.count)
                buffer.writeBytes(bytes)
            }
            buffer.writeStaticString("\r\n")
        }
    }
}

extension ByteBuffer {
    /// Without a text made for each: there are a dozen of these a job.
    fileprivate mutating func writeLength(_ mark: StaticString, _ length: Int) {
        writeStaticString(mark)
        var (divisor, rest) = (1, length)
        while rest / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            writeInteger(UInt8(ascii: "0") + UInt8(rest / divisor))
            (rest, divisor) = (rest % divisor, divisor / 10)
        }
        writeStaticString("\r\n")
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
