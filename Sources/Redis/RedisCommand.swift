package import NIOCore

/// One argument of a command: text, whole number or any bytes.
package enum RedisArgument: Sendable, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
    case text(String)
    case int(Int)
    case bytes([UInt8])

    package init(stringLiteral value: String) { self = .text(value) }
    package init(integerLiteral value: Int) { self = .int(value) }
}

/// A command's name and arguments, e.g. `["SET", .text(key), .bytes(value), "EX", 60]`. Arguments are binary-safe.
package struct RedisCommand: Sendable, ExpressibleByArrayLiteral {
    package var arguments: [RedisArgument]

    package init(arrayLiteral elements: RedisArgument...) { arguments = elements }
    package init(_ arguments: [RedisArgument]) { self.arguments = arguments }

    package static func + (left: RedisCommand, right: [String]) -> RedisCommand {
        RedisCommand(left.arguments + right.map(RedisArgument.text))
    }

    /// Appends the command in RESP2, an array of bulk strings.
    package func encode(into buffer: inout ByteBuffer) {
        buffer.writeString("*\(arguments.count)\r\n")
        for argument in arguments {
            switch argument {
            case .text(let text):
                buffer.writeString("$\(text.utf8.count)\r\n")
                buffer.writeString(text)
            case .int(let number):
                let digits = String(number)
                buffer.writeString("$\(digits.utf8.count)\r\n\(digits)")
            case .bytes(let bytes):
                buffer.writeString("$\(bytes.count)\r\n")
                buffer.writeBytes(bytes)
            }
            buffer.writeString("\r\n")
        }
    }
}
