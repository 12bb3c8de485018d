internal import Foundation

/// One request, its bytes final: what is signed is what is sent.
package struct HTTPRequest: Sendable {
    package enum Method: String, Sendable { case get = "GET", post = "POST", delete = "DELETE" }

    package let method: Method
    package let url: String
    package let headers: [(name: String, value: String)]
    package let body: String?
    /// The largest answer taken; nil: as the client has it.
    package let maxBodyBytes: Int?

    package init(
        _ method: Method, _ url: String, headers: [(name: String, value: String)] = [], body: String? = nil,
        maxBodyBytes: Int? = nil
    ) {
        (self.method, self.url, self.headers, self.body) = (method, url, headers, body)
        self.maxBodyBytes = maxBodyBytes
    }
}

package struct HTTPResponse: Sendable {
    package let status: Int
    /// Names in lower case.
    package let headers: [String: String]
    package let body: [UInt8]
    /// Unix milliseconds when the answer was complete.
    package let receivedMs: Int64
}

/// Why there is no answer.
package struct HTTPError: Error, Sendable, CustomStringConvertible {
    /// `notSent` only when it is certain that the server has not got the whole request.
    package enum Cause: Sendable { case notSent, broken, timedOut, tooLarge, cancelled }

    package let cause: Cause
    package let description: String
}

/// `name=value` fields joined with `&`, values percent-encoded as UTF-8 but for `A-Za-z0-9-._~` (RFC 3986).
func formEncoded(_ fields: [(String, String)]) -> String {
    let plain = CharacterSet(charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    return fields.map { "\($0)=\($1.addingPercentEncoding(withAllowedCharacters: plain) ?? "")" }.joined(separator: "&")
}
