package enum Side: String, Sendable, Codable, CaseIterable { case buy, sell }
package enum OrderType: String, Sendable, Codable, CaseIterable { case market, limit }
/// Good till cancelled, immediate or cancel, fill or kill, post only.
package enum TimeInForce: String, Sendable, CaseIterable { case GTC, IOC, FOK, PO }

/// An order to be sent. Amount (in the base currency) and price are plain decimal text.
package struct OrderRequest: Sendable {
    package var clientOrderId: String
    package var side: Side
    package var type: OrderType
    package var amount: String
    /// Nil for a market order only.
    package var price: String?
    package var timeInForce: TimeInForce

    package init(
        clientOrderId: String, side: Side, type: OrderType, amount: String, price: String?, timeInForce: TimeInForce
    ) {
        self.clientOrderId = clientOrderId
        self.side = side
        self.type = type
        self.amount = amount
        self.price = price
        self.timeInForce = timeInForce
    }
}

package enum OrderStatus: String, Sendable, Codable {
    case open, filled
    case partiallyFilled = "partially_filled"
    case canceled, rejected, expired
}

/// What an exchange says of an order, in the contract's words.
package struct Order: Sendable, Codable, Equatable {
    package var clientOrderId: String
    package var exchangeOrderId: String?
    package var symbol: String
    package var side: Side?
    package var type: OrderType?
    package var status: OrderStatus
    package var amount, filled, averagePrice, price: String?
    package var exchangeMs: Int64?

    package init(
        clientOrderId: String, exchangeOrderId: String? = nil, symbol: String, side: Side? = nil,
        type: OrderType? = nil, status: OrderStatus, amount: String? = nil, filled: String? = nil,
        averagePrice: String? = nil, price: String? = nil, exchangeMs: Int64? = nil
    ) {
        self.clientOrderId = clientOrderId
        self.exchangeOrderId = exchangeOrderId
        self.symbol = symbol
        self.side = side
        self.type = type
        self.status = status
        self.amount = amount
        self.filled = filled
        self.averagePrice = averagePrice
        self.price = price
        self.exchangeMs = exchangeMs
    }
}

/// How an order is asked for: by the client order id, and by the exchange's where it is known.
package struct OrderReference: Sendable {
    package let clientOrderId: String
    package let exchangeOrderId: String?
    package let instrument: Instrument

    package init(clientOrderId: String, exchangeOrderId: String? = nil, instrument: Instrument) {
        self.clientOrderId = clientOrderId
        self.exchangeOrderId = exchangeOrderId
        self.instrument = instrument
    }
}
