internal import Foundation

package enum Side: String, Sendable, Codable, CaseIterable { case buy, sell }
package enum OrderType: String, Sendable, Codable, CaseIterable { case market, limit }
/// Good till cancelled, immediate or cancel, fill or kill, post only.
package enum TimeInForce: String, Sendable, CaseIterable { case gtc = "GTC", ioc = "IOC", fok = "FOK", po = "PO" }
package enum OrderStatus: String, Sendable, Codable {
    case open, filled, canceled, rejected, expired
    case partiallyFilled = "partially_filled"
}

/// An order to be sent. Amount (in the base currency) and price (nil for a market order only) are plain decimal text.
package struct OrderRequest: Sendable {
    package let symbol: String
    package let side: Side
    package let type: OrderType
    package let amount: String
    package let price: String?
    package let timeInForce: TimeInForce

    package init(symbol: String, side: Side, type: OrderType, amount: String, price: String?, timeInForce: TimeInForce)
    {
        (self.symbol, self.side, self.type) = (symbol, side, type)
        (self.amount, self.price, self.timeInForce) = (amount, price, timeInForce)
    }
}

extension OrderRequest {
    /// Whether an order that was found can be this one, as far as the exchange says what it is.
    package func matches(_ order: Order) -> Bool {
        func isSame(_ asked: String?, _ found: String?) -> Bool {
            guard let asked, let found else { return true }
            return Decimal(wire: asked) == Decimal(wire: found)
        }
        return order.side ?? side == side && order.type ?? type == type && isSame(amount, order.amount)
            && isSame(price, order.price)
    }

    /// Whether an order that was found is still to be filled or to end, as it may not rest.
    package func isEnding(_ order: Order) -> Bool {
        let mayRest = type == .limit && [.gtc, .po].contains(timeInForce)
        return order.isPending || !mayRest && [.open, .partiallyFilled].contains(order.status)
    }
}

/// What an exchange says of an order, in the contract's words. Times are unix milliseconds.
package struct Order: Sendable, Encodable, Equatable {
    package var clientOrderId: String
    package var exchangeOrderId: String?
    package var symbol: String
    package var side: Side?
    package var type: OrderType?
    package var status: OrderStatus
    package var amount, filled, averagePrice, price: String?
    package var exchangeMs: Int64?
    /// When the exchange took it, where it says so.
    package var createdMs: Int64?
    /// Whether its status is none of those known, or one before the matching engine has seen it.
    package var isPending = false

    /// Those of the contract.
    private enum CodingKeys: String, CodingKey {
        case clientOrderId, exchangeOrderId, symbol, side, type, status, amount, filled, averagePrice, price, exchangeMs
    }
}

extension Order {
    /// One that was prevented, of which the request is known, or not even that.
    package init(prevented clientOrderId: String, _ symbol: String, _ request: OrderRequest? = nil) {
        self.init(
            clientOrderId: clientOrderId, symbol: symbol, side: request?.side, type: request?.type, status: .canceled,
            amount: request?.amount, price: request?.price)
    }
}

/// How an order is asked for: by the client order id, and by the exchange's where it is known.
package struct OrderReference: Sendable {
    package let clientOrderId: String
    package var instrument: Instrument
    package var exchangeOrderId: String?
    /// Since when it has been with the exchange at least; nil: not known.
    package var age: Duration?

    package init(_ clientOrderId: String, _ instrument: Instrument) {
        (self.clientOrderId, self.instrument) = (clientOrderId, instrument)
    }
}

extension Instrument {
    /// A rule an order breaks, with the field and its value.
    package struct Violation: Error, CustomStringConvertible { package let description: String }

    /// Checks the order against the rules. Nothing is rounded: an order that does not fit is refused.
    package func check(_ order: OrderRequest) throws(Violation) {
        let (amount, price) = (Decimal(wire: order.amount) ?? 0, order.price.map { Decimal(wire: $0) ?? 0 })
        // A bound that is not there is kept by every value.
        let (least, worth) = (minAmount ?? amount, minNotional ?? 0)
        let most = (order.type == .market ? maxMarketAmount : nil) ?? maxAmount ?? amount
        let rules = [
            ("symbol", isTrading, "a market that is open for trading"),
            ("amount", amount > 0, "a decimal above 0 such as 0.01"),
            ("amount", amount.isMultiple(of: step), "a multiple of \(step)"),
            ("amount", amount >= least, "at least \(least)"), ("amount", amount <= most, "at most \(most)"),
            ("price", price ?? 1 > 0, "a decimal above 0 such as 50000.5"),
            ("price", price?.isMultiple(of: tick) ?? true, "a multiple of \(tick)"),
            ("amount", price.map { $0 * amount >= worth } ?? true, "price × amount of at least \(worth)"),
        ]
        guard let (field, _, expected) = rules.first(where: { !$0.1 }) else { return }
        let value = ["symbol": symbol, "amount": order.amount][field] ?? order.price ?? ""
        throw Violation(description: "\(field) '\(value)': expected \(expected)")
    }
}
