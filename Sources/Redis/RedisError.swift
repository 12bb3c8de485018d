/// Why a call on Redis has no answer. The text never holds a password or an argument's value.
package struct RedisError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// The URL cannot be understood.
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

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// Makes the error of an error reply such as `WRONGTYPE Operation against …`.
    package init(reply: String) {
        self.init(.server(String(reply.prefix { $0 != " " })), reply)
    }

    /// Whether the same call can go through later without anything being changed by a person.
    package var isTransient: Bool {
        switch code {
        case .connectionLost, .timedOut: true
        case .server(let word): ["LOADING", "BUSY", "READONLY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN"].contains(word)
        case .invalidURL, .malformedReply: false
        }
    }

    package var description: String { message }
}
