package import Foundation

/// A market of one exchange and the rules its orders obey.
package struct Instrument: Sendable, Codable {
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
    /// The most a market order may have, where that is less.
    package var maxMarketAmount: Decimal?
    /// Orders that an account may send in ten seconds and in a day, where the market list says so.
    package var ordersPer10s, ordersPerDay: Double?
}
