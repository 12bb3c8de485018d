import Foundation

/// An exchange's words, from `answers/speech.json`: endpoints with their weight, and where and how a call describes an order.
struct Speech: Decodable, Sendable {
    static let all = (try? JSONDecoder().decode([String: Speech].self, from: Data(PackageResources.speech_json))) ?? [:]
    /// By `METHOD /path`: Binance's request weight, Bybit's requests a second, the cost to Kraken's private counter.
    let endpoints: [String: Int]
    let placing, cancelling: String
    /// Beginnings of the paths that need no key.
    let `public`: [String]
    /// Where an instrument has its base and quote; empty for Kraken, which has them in `wsname`.
    let entry: [String]
    /// Where an instrument has each rule of `Market.rules`, or the rule itself.
    let rules: [String: String]
    let states: [String: String]
    /// Field names.
    let symbol, side, type, price, lifetime, client: String
    /// The first side buys, the first type is the market order, the first lifetime is the default.
    let sides, types, lifetimes: [String]
}
