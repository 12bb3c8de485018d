package import Exchanges
internal import Foundation
package import Redis

/// What a job asks for. The cases are in the order of service.
package enum Kind: String, Sendable, CaseIterable {
    case cancelOrder = "cancel_order"
    case submitOrder = "submit_order"
    case fetchTicker = "fetch_ticker"
    case refreshCache = "refresh_cache"

    package var isTrading: Bool { self == .cancelOrder || self == .submitOrder }
}

/// One delivered job, its fields understood as far as they could be.
package struct Job: Sendable {
    package enum Work: Sendable {
        case fetchTicker(symbol: String, maxAgeMs: Int64)
        case refreshCache(symbols: [String])
        case submitOrder(OrderFields)
        case cancelOrder(orderId: String, symbol: String)
        /// Not understood: the sentence says which field, its value and what was expected.
        case malformed(String)
    }

    package struct OrderFields: Sendable {
        package let symbol: String
        package let side: Side
        package let type: OrderType
        package let amount: String
        package let price: String?
        package let timeInForce: TimeInForce
    }

    package let exchange: Exchange
    package let kind: Kind
    package let entryId: String
    /// The entry's fields as they came, for handing the job back.
    package let fields: [RedisValue]
    /// The caller's id, else the entry's.
    package let id: String
    package let work: Work
    package let deadlineMs: Int64?
    package let maxAttempts: Int
    package let replyTo: String?
    package let resultTTL: Int?
    package let traceparent: String?
    package let enqueuedMs: Int64

    /// Reads a stream entry. Never fails: what is wrong becomes `Work.malformed`.
    package init(exchange: Exchange, kind: Kind, entryId: String, fields: [RedisValue]) {
        var reader = FieldReader(fields)
        self.exchange = exchange
        self.kind = kind
        self.entryId = entryId
        self.fields = fields
        let own = reader.text("id", "1 to 64 of A-Z a-z 0-9 _ -", isJobId)
        id = own ?? entryId
        deadlineMs = reader.number("deadline_ms", "unix milliseconds", 0...Int64.max)
        maxAttempts = Int(reader.number("max_attempts", "a whole number from 1 to 100", 1...100) ?? 5)
        replyTo = reader.text("reply_to", "a key under \(Keys(exchange).replyPrefix)") {
            $0.hasPrefix(Keys(exchange).replyPrefix) && $0.utf8.count <= 200
        }
        resultTTL = reader.number("result_ttl_s", "whole seconds from 0 to 31536000", 0...31_536_000).map(Int.init)
        traceparent = reader.text("traceparent", "a W3C trace context", isTraceContext)
        // A job handed back by a worker that stopped keeps the time of its first entry.
        let entryMs = Int64(entryId.prefix { $0 != "-" }) ?? 0
        enqueuedMs = reader.number("fleet_enqueued_ms", "unix milliseconds", 0...Int64.max) ?? entryMs
        if kind == .submitOrder, own == nil { reader.fail("id", "nothing", "1 to 64 of A-Z a-z 0-9 _ -, always with an order") }
        let work = reader.work(kind)
        self.work = reader.fault.map(Work.malformed) ?? work
    }
}

/// Picks the known fields out of an entry and keeps the first fault. Unknown fields are ignored.
private struct FieldReader {
    private var values: [String: [UInt8]] = [:]
    private(set) var fault: String?

    init(_ fields: [RedisValue]) {
        for index in stride(from: 0, to: fields.count - 1, by: 2) {
            if case .bytes(let name) = fields[index], case .bytes(let value) = fields[index + 1] {
                values[String(decoding: name, as: UTF8.self)] = value
            }
        }
    }

    mutating func fail(_ field: String, _ value: String, _ expected: String) {
        fault = fault ?? "\(field): \(value); expected \(expected)"
    }

    /// The field's text where it is there and valid. An empty value is an absent one.
    mutating func text(_ field: String, _ expected: String, _ isValid: (String) -> Bool) -> String? {
        guard let bytes = values[field], !bytes.isEmpty else { return nil }
        guard bytes.count <= 100_000, let text = String(validating: bytes, as: UTF8.self), isValid(text) else {
            let shown = String(decoding: bytes.prefix(40), as: UTF8.self)
            let size = bytes.count > 40 ? " … (\(bytes.count) bytes)" : ""
            fail(field, "'\(shown)'\(size)", expected)
            return nil
        }
        return text
    }

    mutating func number(_ field: String, _ expected: String, _ range: ClosedRange<Int64>) -> Int64? {
        let isNumber = { (text: String) in text.utf8.allSatisfy { (48...57).contains($0) } }
        return text(field, expected) { isNumber($0) && Int64($0).map(range.contains) == true }.flatMap(Int64.init)
    }

    mutating func choice<Value: RawRepresentable & CaseIterable>(_ field: String, _: Value.Type) -> Value?
    where Value.RawValue == String {
        text(field, Value.allCases.map(\.rawValue).joined(separator: ", ")) { Value(rawValue: $0) != nil }
            .flatMap(Value.init(rawValue:))
    }

    mutating func required<Value>(_ field: String, _ expected: String, _ value: Value?) -> Value? {
        if value == nil { fail(field, "missing", expected) }
        return value
    }

    mutating func work(_ kind: Kind) -> Job.Work {
        if kind == .refreshCache {
            let list = text("symbols", "symbols BASE/QUOTE, comma separated") { text in
                text.split(separator: ",", omittingEmptySubsequences: false).allSatisfy { isSymbol(String($0)) }
            }
            return .refreshCache(symbols: list?.split(separator: ",").map(String.init) ?? [])
        }
        let symbol = required("symbol", "BASE/QUOTE", text("symbol", "BASE/QUOTE such as BTC/USDT", isSymbol)) ?? ""
        switch kind {
        case .fetchTicker:
            return .fetchTicker(
                symbol: symbol, maxAgeMs: number("max_age_ms", "milliseconds from 0", 0...Int64.max) ?? 1000)
        case .cancelOrder:
            let orderId = text("order_id", "the job id of the order, 1 to 64 of A-Z a-z 0-9 _ -", isJobId)
            return .cancelOrder(orderId: required("order_id", "the job id of the order", orderId) ?? "", symbol: symbol)
        case .submitOrder: return order(symbol) ?? .malformed("")
        case .refreshCache: return .refreshCache(symbols: [])
        }
    }

    private mutating func order(_ symbol: String) -> Job.Work? {
        let plain = "a plain decimal above 0, without sign or exponent"
        let isPositive = { (text: String) in Decimal(wire: text).map { $0 > 0 } ?? false }
        let side = required("side", "buy, sell", choice("side", Side.self))
        let type = required("type", "market, limit", choice("type", OrderType.self))
        let amount = required("amount", plain, text("amount", plain, isPositive))
        let price = text("price", plain, isPositive)
        let timeInForce = choice("time_in_force", TimeInForce.self)
        if type == .market, let price { fail("price", "'\(price)'", "no price on a market order") }
        if type == .market, let timeInForce {
            fail("time_in_force", "'\(timeInForce.rawValue)'", "none on a market order")
        }
        if type == .limit { _ = required("price", plain, price) }
        guard fault == nil, let side, let type, let amount else { return nil }
        return .submitOrder(
            Job.OrderFields(
                symbol: symbol, side: side, type: type, amount: amount, price: price, timeInForce: timeInForce ?? .GTC))
    }
}

/// Whether the text can be a job id: 1 to 64 of `A-Z a-z 0-9 _ -`.
package func isJobId(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count)
        && text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default: false
            }
        }
}

/// Whether the text has the form `BASE/QUOTE`; whether there is such a market only the exchange knows.
package func isSymbol(_ text: String) -> Bool {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    return parts.count == 2
        && parts.allSatisfy { part in
            (1...20).contains(part.count) && part.allSatisfy { $0.isNumber || ($0.isLetter && !$0.isLowercase) }
        }
}

private func isTraceContext(_ text: String) -> Bool {
    text.utf8.count <= 100 && text.utf8.allSatisfy { (48...57).contains($0) || (97...102).contains($0) || $0 == 45 }
}
