internal import Foundation

/// A look into an answer whose types are not to be trusted: what is missing or of another type reads as nil.
struct JSON {
    private let value: Any?

    /// - Throws: `ExchangeError.malformed` when the body is no JSON.
    init(_ response: HTTPResponse) throws(ExchangeError) {
        guard let value = try? JSONSerialization.jsonObject(with: Data(response.body)) else {
            throw .malformed(response)
        }
        self.value = value
    }

    private init(_ value: Any?) { self.value = value }

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
    /// Seconds with a fraction, as a number or text, in milliseconds.
    var secondsAsMs: Int64? {
        (value as? Double ?? text.flatMap(Double.init)).flatMap { 0..<4e9 ~= $0 ? Int64($0 * 1000) : nil }
    }
}

/// The time if it can be one, in unix milliseconds: up to the year 2096. Keeps arithmetic on times from overflowing.
func unixMs(_ time: Int64) -> Int64? { 0..<4_000_000_000_000 ~= time ? time : nil }
