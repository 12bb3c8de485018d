import Exchanges
import Foundation

/// One order as the matching engine knows it; amounts in base, times in unix ms.
struct Order {
    /// `crossed`: post-only, and canceled because it would have matched at once.
    enum State: String { case open, filled, canceled, expired, crossed }
    let id, client, side, type, lifetime: String
    let market, accepted: Int
    let amount: Decimal
    /// Nil for a market order.
    let price: Decimal?
    let isPostOnly: Bool
    var state = State.open
    var fill = Decimal()
    var updated: Int

    var buys: Bool { side.lowercased() == "buy" }
    /// For templates.
    func values(_ market: Market, _ speech: Speech) -> [String: String] {
        let values = [
            "id": id, "client": client.isEmpty ? speech.noClient : jsonText(client), "symbol": market.id,
            "pair": market.alias, "side": side, "type": type, "lifetime": lifetime,
            "amount": amount.text(8), "price": (price ?? 0).text(8), "fill": fill.text(8),
            "spent": (amount * fill).text(8), "limit": price.map { " \($0.text(market.places))" } ?? "",
            "accepted": "\(accepted)", "updated": "\(updated)", "opened": (Decimal(accepted) / 1000).text(4),
            "closed": (Decimal(updated) / 1000).text(4), "plainSide": side.lowercased(),
            "plainType": price == nil ? "market" : "limit", "plainAmount": "\(amount)",
            "plainPrice": price.map { "\"\($0)\"" } ?? "null",
            "status": (state == .crossed ? State.canceled : state).rawValue,
        ]
        return values.merging(speech.states[state.rawValue] ?? [:]) { $1 }
    }
}
