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
