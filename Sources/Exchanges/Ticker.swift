/// The state of one market, in the contract's words. Prices and volumes are decimal text as the exchange wrote them.
package struct Ticker: Sendable, Codable, Equatable {
    package var symbol: String
    package var bid, ask, last, open, high, low, baseVolume, quoteVolume, changePercent: String?
    /// Unix milliseconds by the exchange's clock, where it says so.
    package var exchangeMs: Int64?
    /// Unix milliseconds by the fleet's clock when the answer was complete.
    package var receivedMs: Int64
}
