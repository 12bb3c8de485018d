/// What a job asks for. The cases are in the order of service.
package enum Kind: String, Sendable, CaseIterable {
    case cancelOrder = "cancel_order"
    case submitOrder = "submit_order"
    case fetchTicker = "fetch_ticker"
    case refreshCache = "refresh_cache"

    /// By the case: of its own an enumeration with texts hashes the text, a dozen times a job.
    package func hash(into hasher: inout Hasher) {
        let number: UInt8 =
            switch self {
            case .cancelOrder: 0
            case .submitOrder: 1
            case .fetchTicker: 2
            case .refreshCache: 3
            }
        hasher.combine(number)
    }

    package var isTrading: Bool { self == .cancelOrder || self == .submitOrder }
}
