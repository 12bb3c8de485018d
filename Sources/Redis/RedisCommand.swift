/// One argument of a command: text, whole number or any bytes.
package enum RedisArgument: Sendable, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
    case text(String), bytes([UInt8])

    package init(stringLiteral value: String) { self = .text(value) }
    package init(integerLiteral value: Int) { self = .int(value) }
    package static func int(_ number: Int) -> RedisArgument { .text(String(number)) }
}

/// A command's name and arguments, e.g. `["SET", .text(key), .bytes(value), "EX", 60]`. Arguments are binary-safe.
package typealias RedisCommand = [RedisArgument]

extension RedisCommand {
    package static func + (left: RedisCommand, right: [String]) -> RedisCommand { left + right.map(RedisArgument.text) }
}

extension [UInt8] {
    /// Appends a command in RESP2, an array of bulk strings.
    mutating func append(_ command: RedisCommand) {
        appendHead("*", command.count)
        for argument in command {
            switch argument {
            case .text(let text): appendBulk(text.utf8)
            case .bytes(let value): appendBulk(value)
            }
        }
    }

    private mutating func appendHead(_ mark: Unicode.Scalar, _ count: Int) {
        append(UInt8(ascii: mark))
        appendDigits(count)
        appendLineEnd()
    }

    private mutating func appendBulk(_ value: some Collection<UInt8>) {
        appendHead("$", value.count)
        append(contentsOf: value)
        appendLineEnd()
    }

    // A dozen of these a job: a `String` of the number would cost more than all the rest.
    private mutating func appendDigits(_ number: Int) {
        if number >= 10 { appendDigits(number / 10) }
        append(UInt8(ascii: "0") + UInt8(number % 10))
    }

    // As text it would take half as long again to write a command.
    private mutating func appendLineEnd() {
        append(UInt8(ascii: "\r"))
        append(UInt8(ascii: "\n"))
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
