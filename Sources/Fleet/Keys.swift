package import Exchanges

/// Every Redis key of one exchange. All carry the hash tag `{exchange}`, so that they lie in one slot.
package struct Keys: Sendable {
    package static let group = "workers"
    private let prefix: String
    /// Asked for with every job.
    private let resultPrefix: String
    package let markerPrefix, replyPrefix: String

    package init(_ exchange: Exchange) {
        prefix = "fleet:{\(exchange.rawValue)}:"
        (resultPrefix, markerPrefix, replyPrefix) = (prefix + "result:", prefix + "job:", prefix + "reply:")
    }

    package func jobs(_ kind: Kind) -> String { prefix + "jobs:" + kind.rawValue }
    package var delayed: String { prefix + "delayed" }
    package var dead: String { prefix + "dead" }
    package func result(_ id: String) -> String { resultPrefix + id }
    package func order(_ id: String) -> String { prefix + "order:" + id }
    package func cache(_ symbol: String) -> String { prefix + "cache:" + symbol }
    /// There while a worker fetches a ticker that others want too.
    func fetch(_ symbol: String) -> String { prefix + "fetch:" + symbol }
    /// There for a moment while a worker fetches a few tickers: who wants others waits for the next request.
    var fetching: String { prefix + "fetching" }
    /// Symbols by the time (unix ms) they were last asked for: a sorted set.
    package var asked: String { prefix + "asked" }
    /// The last nonce given out: one sequence serves every API key, as it only ever grows.
    package var nonce: String { prefix + "nonce" }
    /// Where the job of an id is, for jobs that came in by `fleet_enqueue`.
    package func marker(_ id: String) -> String { markerPrefix + id }
    /// The journals of orders that ended unknown and that nobody has settled: a set.
    package var unsettled: String { prefix + "unsettled" }
    /// The exchange's markets as a worker loaded them from an address, a simulator's or the exchange's own. The number
    /// is that of the rules by which they are named.
    func markets(_ baseURL: String) -> String {
        prefix + "markets:2:" + Signing.hex(Signing.sha256(baseURL.utf8).prefix(6))
    }
    /// What happened to the lane: breakers, gate, pauses. A stream of about a thousand entries.
    package var events: String { prefix + "events" }
    /// The kinds a person has stopped: a set.
    package var paused: String { prefix + "paused" }
    /// When the next retry may come: of tickers and refreshes, and of orders and cancels, which do not wait for those.
    package var retries: String { prefix + "limit:retries" }
    package var tradingRetries: String { prefix + "limit:retries-trading" }
    /// A budget and the gate of an address group or an account.
    package func limit(_ name: String, _ owner: String) -> String { prefix + "limit:" + name + ":" + owner }
    package func gate(_ owner: String) -> String { limit("gate", owner) }
    /// There while a worker of an address group finds out whether the exchange is back, and for a while when it is not.
    package func probe(_ egress: String, trading: Bool) -> String { limit(trading ? "probe-trading" : "probe", egress) }
    package func reply(_ id: String) -> String { replyPrefix + id }
}
