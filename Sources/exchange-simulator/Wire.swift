import Foundation
import HTTPTypes

/// One request as the exchange behind the prefix sees it; `query` and `body` are the raw text that was signed.
struct Call: Sendable {
    let method, path, query, body, address: String
    let headers: HTTPFields
    var endpoint: String { "\(method) \(path)" }
    /// Query, then form or JSON fields; the query wins.
    let fields: [String: String]

    init(method: String, path: String, query: String, body: String, address: String, headers: HTTPFields) {
        (self.method, self.path, self.query, self.body) = (method, path, query, body)
        (self.address, self.headers) = (address, headers)
        let more = body.hasPrefix("{") ? object(Array(body.utf8)).compactMapValues(scalar) : form(body)
        fields = form(query).merging(more) { first, _ in first }
    }

    /// A field that was sent and is not empty.
    subscript(name: String) -> String? { fields[name].flatMap { $0.isEmpty ? nil : $0 } }
    func header(_ name: String) -> String { HTTPField.Name(name).flatMap { headers[$0] } ?? "" }
}

/// What goes back; thrown where it refuses.
struct Answer: Error {
    var status = 200
    var body: String
    var headers: [(String, String)] = []
}

/// Fields of an x-www-form-urlencoded text; the first of equal names.
func form(_ text: String) -> [String: String] {
    let pairs = text.split(separator: "&").map { $0.split(separator: "=", maxSplits: 1).map(decoded) }
    return Dictionary(
        pairs.map { ($0.first ?? "", $0.count > 1 ? $0[1] : "") }, uniquingKeysWith: { first, _ in first })
}

/// Percent escapes and plus signs undone; a text with a broken escape stays as it is.
func decoded(_ text: Substring) -> String {
    guard text.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) else { return String(text) }
    return text.replacing("+", with: " ").removingPercentEncoding ?? String(text)
}

/// The members of a JSON object; empty for anything else.
func object(_ bytes: [UInt8]) -> [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(bytes))) as? [String: Any] ?? [:]
}

/// A JSON string, plain number or truth value as text.
func scalar(_ value: Any) -> String? {
    let text = "\(value)"
    return value is String || Fixed(text) != nil || text == "true" || text == "false" ? text : nil
}

/// JSON text of any JSON value.
func json(_ value: Any) -> String {
    let options: JSONSerialization.WritingOptions = [.sortedKeys, .withoutEscapingSlashes, .fragmentsAllowed]
    return String(
        decoding: (try? JSONSerialization.data(withJSONObject: value, options: options)) ?? Data(), as: UTF8.self)
}

/// Answer texts by name, with `%name%` where a value goes.
private let templates: [Substring: [Substring]] = Dictionary(
    String(decoding: PackageResources.templates_txt, as: UTF8.self).split(separator: "\n").map { line in
        let parts = line.split(separator: " ", maxSplits: 1)
        return (parts[0], parts[1].split(separator: "%", omittingEmptySubsequences: false))
    }, uniquingKeysWith: { first, _ in first })

/// The template `name` of `answers/templates.txt`, filled in.
func render(_ name: String, _ values: [String: String]) -> String {
    var text = ""
    for (index, part) in (templates[Substring(name)] ?? []).enumerated() {
        text += index % 2 == 0 ? part : Substring(values[String(part)] ?? "")
    }
    return text
}

/// A text as a JSON string.
func quoted(_ text: String) -> String {
    text.utf8.allSatisfy { $0 >= 32 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        ? "\"\(text)\"" : json(text)
}
