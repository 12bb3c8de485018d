package import Foundation

/// A market of one exchange and the rules its orders obey.
package struct Instrument: Sendable {
    /// Unified, e.g. `BTC/USDT`.
    package let symbol: String
    /// The exchange's own name, e.g. `BTCUSDT` or `XXBTZUSD`.
    package let id: String
    /// Smallest step of a price and of an amount.
    package let tick, step: Decimal
    /// Bounds of the amount, in the base currency; nil: no rule.
    package let minAmount, maxAmount: Decimal?
    /// Least price × amount, in the quote currency.
    package let minNotional: Decimal?
    package let isTrading: Bool

    /// A rule an order breaks, with the field and its value.
    package struct Violation: Error, CustomStringConvertible {
        package let description: String

        init(_ field: String, _ value: String, _ expected: String) {
            description = "\(field) '\(value)': expected \(expected)"
        }
    }

    /// Checks the order against the rules. Nothing is rounded: an order that does not fit is refused.
    package func check(_ order: OrderRequest) throws(Violation) {
        guard isTrading else { throw Violation("symbol", symbol, "a market that is open for trading") }
        guard let amount = Decimal(wire: order.amount), amount > 0 else {
            throw Violation("amount", order.amount, "a decimal above 0 such as 0.01")
        }
        guard amount.isMultiple(of: step) else { throw Violation("amount", order.amount, "a multiple of \(step)") }
        if let minAmount, amount < minAmount { throw Violation("amount", order.amount, "at least \(minAmount)") }
        if let maxAmount, amount > maxAmount { throw Violation("amount", order.amount, "at most \(maxAmount)") }
        guard let text = order.price else { return }
        guard let price = Decimal(wire: text), price > 0 else {
            throw Violation("price", text, "a decimal above 0 such as 50000.5")
        }
        guard price.isMultiple(of: tick) else { throw Violation("price", text, "a multiple of \(tick)") }
        if let minNotional, price * amount < minNotional {
            throw Violation("amount", order.amount, "price × amount of at least \(minNotional)")
        }
    }
}
