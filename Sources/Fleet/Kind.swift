/// What a job asks for. The cases are in the order of service.
package enum Kind: String, Sendable, CaseIterable {
    case cancelOrder = "cancel_order"
    case submitOrder = "submit_order"
    case fetchTicker = "fetch_ticker"
    case refreshCache = "refresh_cache"

    package var isTrading: Bool { self == .cancelOrder || self == .submitOrder }
}
