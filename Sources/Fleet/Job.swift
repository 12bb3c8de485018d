package import Exchanges
internal import Foundation
package import Redis

/// One delivered job, its fields understood as far as they could be. Times are unix milliseconds.
///
/// A class, as it is handed around often and never changes: a copy of the structure would count a dozen references.
package final class Job: Sendable {
    package enum Work: Sendable {
        case fetchTicker(symbol: String, maxAgeMs: Int64)
        case refreshCache(symbols: [String])
        case submitOrder(OrderRequest)
        case cancelOrder(orderId: String, symbol: String)
        /// Not understood: the sentence says which field, its value and what was expected.
        case malformed(String)
    }

    package let exchange: Exchange
    package let kind: Kind
    package let entryId: String
    /// The caller's id, else the entry's.
    package let id: String
    package let work: Work
    package let deadlineMs: Int64?
    package let maxAttempts: Int
    /// Executions begun, this one included; and how often this entry was handed to a worker.
    package let attempt, deliveries: Int
    package let replyTo, traceparent: String?
    /// In seconds.
    package let resultTTL: Int?
    package let enqueuedMs: Int64
    /// Whether this is its first entry, and it was not delivered before.
    let isFirst: Bool

    /// Reads a stream entry. Never fails: what is wrong becomes `Work.malformed`.
    package init(exchange: Exchange, kind: Kind, entryId: String, fields: [RedisValue], deliveries: Int = 1) {
        (self.exchange, self.kind, self.entryId, self.deliveries) = (exchange, kind, entryId, deliveries)
        var reader = FieldReader(fields: fields)
        let own = reader.text("id", jobIdForm, isJobId)
        id = own ?? entryId
        deadlineMs = reader.number("deadline_ms", 0...Int64.max, "unix milliseconds")
        maxAttempts = Int(reader.number("max_attempts", 1...100) ?? 5)
        resultTTL = reader.number("result_ttl_s", 0...31_536_000).map(Int.init)
        replyTo = reader.text("reply_to", "a key of at most 200 bytes under \(Keys(exchange).replyPrefix)") { text in
            text.hasPrefix(Keys(exchange).replyPrefix) && text.utf8.count <= 200
        }
        traceparent = reader.text("traceparent", "a W3C trace context, 00-<32 hex>-<16 hex>-<2 hex>") { text in
            let parts = text.split(separator: "-", omittingEmptySubsequences: false).map(\.utf8)
            let isKnown = text.hasPrefix("00")
            return parts.prefix(4).map(\.count) == [2, 32, 16, 2] && text.utf8.count <= (isKnown ? 55 : 100)
                && parts.joined().allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
                && !text.hasPrefix("ff") && parts[1...2].allSatisfy { $0.contains { $0 != 48 } }
        }
        attempt = Int(reader.number("fleet_attempt", 1...1_000_000) ?? 1)
        // A job that went back to its stream keeps the time of its first entry.
        let firstMs = reader.number("fleet_enqueued_ms", 0...Int64.max)
        isFirst = firstMs == nil && deliveries == 1
        enqueuedMs = firstMs ?? Int64(Substring(entryId.utf8.prefix { $0 != UInt8(ascii: "-") })) ?? 0
        if kind == .submitOrder, own == nil { reader.fail("id", "missing", jobIdForm) }
        // A function of Redis handles some thousand arguments: a job with more could not be moved whole.
        // The ten are those that a job gets on its way.
        if fields.count > 2 * (1000 + 10) { reader.fail("fields", "\(fields.count / 2)", "at most 1000") }
        let work = reader.work(kind)
        self.work = reader.fault.map(Work.malformed) ?? work ?? .malformed("nothing understood")
    }
}

private let jobIdForm = "1 to 64 of A-Z a-z 0-9 _ -"

/// Picks the known fields out of an entry and keeps the first fault. Unknown fields are ignored.
private struct FieldReader {
    let fields: [RedisValue]
    var fault: String?

    /// The last of the name. Looked up without a dictionary, which would cost more than all else here: most jobs have
    /// few fields.
    private func value(_ name: StaticString) -> [UInt8]? {
        let wanted = UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        for index in stride(from: (fields.count & ~1) - 2, through: 0, by: -2) {
            guard case .bytes(let found) = fields[index], found.elementsEqual(wanted),
                case .bytes(let value) = fields[index + 1]
            else { continue }
            return value
        }
        return nil
    }

    mutating func fail(_ field: StaticString, _ value: String, _ expected: String) {
        fault = fault ?? "\(field): \(value); expected \(expected)"
    }

    /// The field's text where it is there and valid. An empty value is an absent one.
    mutating func text(
        _ field: StaticString, _ expected: @autoclosure () -> String, _ isValid: (String) -> Bool = { _ in true }
    ) -> String? {
        guard let bytes = value(field), !bytes.isEmpty else { return nil }
        // Bytes that are not UTF-8 would have been replaced.
        let text = String(decoding: bytes.prefix(100_000), as: UTF8.self)
        if text.utf8.elementsEqual(bytes), isValid(text) { return text }
        let size = bytes.count > 40 ? " … (\(bytes.count) bytes)" : ""
        fail(field, "'\(String(decoding: bytes.prefix(40), as: UTF8.self))'\(size)", expected())
        return nil
    }

    mutating func required(_ field: StaticString, _ expected: String, _ isValid: (String) -> Bool) -> String {
        let text = text(field, expected, isValid)
        if text == nil { fail(field, "missing", expected) }
        return text ?? ""
    }

    mutating func number(_ field: StaticString, _ range: ClosedRange<Int64>, _ unit: String = "a whole number")
        -> Int64?
    {
        let value = { (text: String) in text.utf8.allSatisfy { (48...57).contains($0) } ? Int64(text) : nil }
        let most = { range.upperBound == .max ? "" : " to \(range.upperBound)" }
        return text(field, "\(unit) from \(range.lowerBound)\(most())") { value($0).map(range.contains) ?? false }
            .flatMap(value)
    }

    mutating func choice<Value: RawRepresentable & CaseIterable>(_ field: StaticString, _ standard: Value? = nil)
        -> Value?
    where Value.RawValue == String {
        let expected = Value.allCases.map(\.rawValue).joined(separator: ", ")
        if standard != nil, value(field)?.isEmpty ?? true { return standard }
        return Value(rawValue: required(field, expected) { Value(rawValue: $0) != nil })
    }

    mutating func work(_ kind: Kind) -> Job.Work? {
        if kind == .refreshCache {
            let names = { (text: String) in
                text.split(separator: ",", omittingEmptySubsequences: false).map {
                    $0.trimmingCharacters(in: .whitespaces)
                }
            }
            let list = text("symbols", "symbols BASE/QUOTE, comma separated") { names($0).allSatisfy(isSymbol) }
            return .refreshCache(symbols: list.map(names) ?? [])
        }
        let symbol = required("symbol", "BASE/QUOTE such as BTC/USDT", isSymbol)
        if kind == .fetchTicker {
            return .fetchTicker(symbol: symbol, maxAgeMs: number("max_age_ms", 0...Int64.max) ?? 1000)
        }
        if kind == .cancelOrder {
            return .cancelOrder(
                orderId: required("order_id", "the order's job id, \(jobIdForm)", isJobId), symbol: symbol)
        }
        let plain = "a plain decimal above 0 of at most 31 characters, without sign or exponent"
        let isPositive = { (text: String) in Decimal(wire: text).map { $0 > 0 } ?? false }
        guard let side: Side = choice("side"), let type: OrderType = choice("type") else { return nil }
        let amount = required("amount", plain, isPositive)
        let price = type == .limit ? required("price", plain, isPositive) : nil
        guard let timeInForce = choice("time_in_force", TimeInForce.gtc) else { return nil }
        if type == .market {
            if let value = text("price", "") { fail("price", "'\(value)'", "none on a market order") }
            if [.fok, .po].contains(timeInForce) {
                fail("time_in_force", "'\(timeInForce.rawValue)'", "GTC, IOC or none on a market order")
            }
        }
        return .submitOrder(
            OrderRequest(symbol: symbol, side: side, type: type, amount: amount, price: price, timeInForce: timeInForce)
        )
    }
}

/// Whether the text can be a job id: 1 to 64 of `A-Z a-z 0-9 _ -`.
package func isJobId(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count)
        && text.unicodeScalars.allSatisfy {
            $0.isASCII && ($0.properties.isAlphabetic || "0123456789_-".unicodeScalars.contains($0))
        }
}

/// Whether the text has the form `BASE/QUOTE`; whether there is such a market only the exchange knows.
package func isSymbol(_ text: String) -> Bool {
    // Most are plain capitals and digits; asking Unicode of each costs more than the rest of a job's reading.
    let isPlain = text.utf8.allSatisfy { (65...90).contains($0) || (47...57).contains($0) }
    if isPlain, let slash = text.utf8.firstIndex(of: 47) {
        let (base, quote) = (text.utf8[..<slash], text.utf8[text.utf8.index(after: slash)...])
        return (1...20).contains(base.count) && (1...20).contains(quote.count) && !quote.contains(47)
    }
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    return parts.count == 2
        && parts.allSatisfy { part in
            part.utf8.count <= 60 && (1...20).contains(part.count)
                && part.allSatisfy { $0.isNumber || ($0.isLetter && !$0.isLowercase) }
        }
}
