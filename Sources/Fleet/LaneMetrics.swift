package import Exchanges
package import Metrics

/// The figures of one lane. Labels are bounded: exchange, kind, outcome, source, class.
package struct LaneMetrics: Sendable {
    package let inHand: Gauge
    package let redisLosses, handedBack: Counter
    package let requestDuration: Metrics.Timer
    private let jobs: [Kind: [Outcome.Status: Counter]]
    private let durations, waits: [Kind: Metrics.Timer]
    private let answers: [Tickers.Source: Counter]
    private let requests: [String: Counter]
    private let breakers: [Bool: Gauge]

    package init(_ exchange: Exchange) {
        let label = ("exchange", exchange.rawValue)
        func table<Key: Hashable, Value>(_ keys: [Key], _ make: (Key) -> Value) -> [Key: Value] {
            Dictionary(uniqueKeysWithValues: keys.map { ($0, make($0)) })
        }
        inHand = Gauge(label: "fleet_jobs_in_hand", dimensions: [label])
        redisLosses = Counter(label: "fleet_redis_connection_losses_total", dimensions: [label])
        handedBack = Counter(label: "fleet_jobs_handed_back_total", dimensions: [label])
        requestDuration = Timer(label: "fleet_exchange_request_duration_seconds", dimensions: [label])
        jobs = table(Kind.allCases) { kind in
            table(Outcome.Status.allCases) { status in
                Counter(
                    label: "fleet_jobs_total",
                    dimensions: [label, ("kind", kind.rawValue), ("outcome", status.rawValue)])
            }
        }
        durations = table(Kind.allCases) {
            Timer(label: "fleet_job_duration_seconds", dimensions: [label, ("kind", $0.rawValue)])
        }
        waits = table(Kind.allCases) {
            Timer(label: "fleet_queue_wait_seconds", dimensions: [label, ("kind", $0.rawValue)])
        }
        answers = table(Tickers.Source.allCases) {
            Counter(label: "fleet_ticker_answers_total", dimensions: [label, ("source", $0.rawValue)])
        }
        requests = table(["ok", "no_answer", "wait", "resync", "unknown", "dup", "permanent", "auth"]) {
            Counter(label: "fleet_exchange_requests_total", dimensions: [label, ("outcome", $0)])
        }
        breakers = table([true, false]) {
            Gauge(label: "fleet_breaker_open", dimensions: [label, ("class", $0 ? "trading" : "market")])
        }
        for breaker in breakers.values { breaker.record(0) }
        inHand.record(0)
    }

    func finished(_ kind: Kind, _ status: Outcome.Status, milliseconds: Int64) {
        jobs[kind]?[status]?.increment()
        durations[kind]?.recordMilliseconds(milliseconds)
    }

    func queueWait(_ kind: Kind, milliseconds: Int64) { waits[kind]?.recordMilliseconds(max(0, milliseconds)) }
    func answered(_ source: Tickers.Source) { answers[source]?.increment() }
    func requested(_ outcome: String) { requests[outcome]?.increment() }
    func breaker(trading: Bool, isOpen: Bool) { breakers[trading]?.record(isOpen ? 1 : 0) }
}
