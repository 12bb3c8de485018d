package import Exchanges

/// Every Redis key of one exchange. All carry the hash tag `{exchange}`, so that they lie in one slot.
package struct Keys: Sendable {
    package static let group = "workers"
    private let prefix: String

    package init(_ exchange: Exchange) { prefix = "fleet:{\(exchange.rawValue)}:" }

    package func jobs(_ kind: Kind) -> String { prefix + "jobs:" + kind.rawValue }
    package var delayed: String { prefix + "delayed" }
    package var dead: String { prefix + "dead" }
    package func result(_ id: String) -> String { prefix + "result:" + id }
    package func order(_ id: String) -> String { prefix + "order:" + id }
    package func cache(_ symbol: String) -> String { prefix + "cache:" + symbol }
    /// Symbols by the time (unix ms) they were last asked for: a sorted set.
    package var asked: String { prefix + "asked" }
    /// The last nonce given out: one sequence serves every API key, as it only ever grows.
    package var nonce: String { prefix + "nonce" }
    package func reply(_ id: String) -> String { replyPrefix + id }
    package var replyPrefix: String { prefix + "reply:" }
}
