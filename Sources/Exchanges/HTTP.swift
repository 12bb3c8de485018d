/// One request, its bytes final: what is signed is what is sent.
package struct HTTPRequest: Sendable {
    package enum Method: String, Sendable { case GET, POST, DELETE }

    package var method: Method
    package var url: String
    package var headers: [(name: String, value: String)]
    package var body: String?

    package init(
        _ method: Method, _ url: String, headers: [(name: String, value: String)] = [], body: String? = nil
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
    }
}

package struct HTTPResponse: Sendable {
    package let status: Int
    /// Names in lower case.
    package let headers: [String: String]
    package let body: [UInt8]
    /// Unix milliseconds when the answer was complete.
    package let receivedMs: Int64

    package init(status: Int, headers: [String: String], body: [UInt8], receivedMs: Int64) {
        self.status = status
        self.headers = headers
        self.body = body
        self.receivedMs = receivedMs
    }

    package func header(_ name: String) -> String? { headers[name] }
}

/// Why there is no answer.
package struct HTTPError: Error, Sendable, CustomStringConvertible {
    package enum Kind: Sendable { case notSent, broken, timedOut, tooLarge, cancelled }

    /// `notSent` only when it is certain that the server has not got the whole request.
    package let kind: Kind
    package let description: String

    init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}

/// `name=value` pairs joined with `&`, values percent-encoded as UTF-8 but for `A-Za-z0-9-._~` (RFC 3986).
func formEncoded(_ pairs: [(String, String)]) -> String {
    pairs.map { "\($0)=\(percentEncoded($1))" }.joined(separator: "&")
}

private func percentEncoded(_ text: String) -> String {
    var encoded = ""
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
            UInt8(ascii: "~"):
            encoded.unicodeScalars.append(Unicode.Scalar(byte))
        default: encoded += "%" + Signing.hex([byte]).uppercased()
        }
    }
    return encoded
}
