internal import Foundation

/// A look into an answer whose types are not to be trusted: what is missing or of another type reads as nil, and so does
/// all of a body that is no JSON.
struct JSON {
    private let value: Any?

    init(_ value: Any?) { self.value = value }
    init(body: [UInt8]) { value = try? JSONSerialization.jsonObject(with: Data(body)) }

    subscript(_ name: String) -> JSON { JSON((value as? [String: Any])?[name]) }

    /// The elements of an array; nil for anything else.
    var list: [JSON]? { (value as? [Any])?.map { JSON($0) } }
    /// The members of an object; nil for anything else.
    var members: [String: JSON]? { (value as? [String: Any])?.mapValues { JSON($0) } }
    /// A string, or a whole number as text: answers carry ids and times as either.
    var text: String? { value as? String ?? (value as? Int64).map(String.init) }
    var int: Int64? { value as? Int64 ?? text.flatMap(Int64.init) }
    /// A plain decimal as the exchange wrote it; anything else is nil.
    var decimal: String? { (value as? String).flatMap { Decimal(wire: $0) == nil ? nil : $0 } }
    /// A rule or price whose zero means "none".
    var positive: Decimal? { decimal.flatMap(Decimal.init(wire:)).flatMap { $0 > 0 ? $0 : nil } }
    var positiveText: String? { positive == nil ? nil : decimal }
    /// A time up to the year 2096, in milliseconds: no arithmetic on it overflows. 0 is none.
    var unixMs: Int64? { int.flatMap { 1..<4_000_000_000_000 ~= $0 ? $0 : nil } }
    /// The same, written in seconds, which may have a fraction.
    var secondsAsMs: Int64? {
        (value as? Double ?? text.flatMap(Double.init)).flatMap { 0.001..<4e9 ~= $0 ? Int64($0 * 1000) : nil }
    }
}

/// The members of a JSON object; empty for anything else.
package func jsonObject(_ text: String?) -> [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data((text ?? "").utf8))) as? [String: Any] ?? [:]
}

/// The text of any JSON value, members by name.
package func jsonText(_ value: Any) -> String {
    let options: JSONSerialization.WritingOptions = [.sortedKeys, .withoutEscapingSlashes, .fragmentsAllowed]
    let data = try? JSONSerialization.data(withJSONObject: value, options: options)
    return String(decoding: data ?? Data(), as: UTF8.self)
}
