import Exchanges
import Foundation
import HTTPTypes

/// One request; `query` and `body` are the raw text that was signed.
struct Call {
    /// `prefix` is the first part of the path; `path` is the rest.
    let method, prefix, path, query, body, address: String
    let headers: HTTPFields
    /// Query, then form or JSON fields; the query wins.
    private let fields: [String: String]
    var endpoint: String { "\(method) \(path)" }

    init(_ head: HTTPTypes.HTTPRequest, body: String, address: String) {
        let target = (head.path ?? "/").split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let parts = target[0].split(separator: "/", maxSplits: 1)
        (prefix, path) = (String(parts.first ?? ""), parts.count > 1 ? "/\(parts[1])" : "/")
        (method, headers, query) = (head.method.rawValue, head.headerFields, target.count > 1 ? String(target[1]) : "")
        (self.body, self.address) = (body, address)
        let more = body.hasPrefix("{") ? jsonObject(body).mapValues { "\($0)" } : form(body)
        fields = form(query).merging(more) { first, _ in first }
    }

    /// A field that was sent and is not empty.
    subscript(name: String) -> String? { fields[name].flatMap { $0.isEmpty ? nil : $0 } }
    func header(_ name: String) -> String { HTTPField.Name(name).flatMap { headers[$0] } ?? "" }
    /// Whether the values of its fields, joined by spaces, match.
    func fits(_ check: Check) -> Bool {
        let text = check.fields.map { self[$0] ?? "" }.joined(separator: " ")
        return check.pattern.firstMatch(in: text, range: NSRange(location: 0, length: text.utf16.count)) != nil
    }
}

/// What goes back; thrown where it refuses.
struct Answer: Error {
    var status = 200
    var body: String
    var headers: [(String, String)] = []
}

/// Fields of an x-www-form-urlencoded text; the first of equal names.
private func form(_ text: String) -> [String: String] {
    let items = URLComponents(string: "?\(text.replacing("+", with: "%20"))")?.queryItems ?? []
    return Dictionary(items.map { ($0.name, $0.value ?? "") }) { first, _ in first }
}
