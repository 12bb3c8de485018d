/// Why a call on Redis has no answer. The text never holds a password or an argument's value.
package struct RedisError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        case invalidURL
        /// There is no connection, or it broke before the answer came: whether the call was carried out is unknown.
        case connectionLost
        /// No answer within the call's timeout; the connection was closed. Whether it was carried out is unknown.
        case timedOut
        /// Bytes came that are not RESP2, or a reply of a shape the command does not have.
        case malformedReply
        /// Redis answered with an error; the value is its first word, e.g. `WRONGTYPE`.
        case server(String)
    }

    package let code: Code
    package let message: String
    package var description: String { message }

    package init(_ code: Code, _ message: String) { (self.code, self.message) = (code, message) }
}
