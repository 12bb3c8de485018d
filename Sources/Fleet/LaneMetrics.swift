package import Exchanges
internal import Metrics

/// What can happen to a delivered job besides being finished.
enum Move: String, CaseIterable {
    case retried, claimed, buried, setAside = "set_aside", handedBack = "handed_back"
    /// Finished here when it was another worker's already: nothing was changed.
    case fenced
}

/// The figures of one lane. Labels are bounded: exchange, kind, outcome, source, class, move.
package struct LaneMetrics: Sendable {
    /// What each metric says, by its name.
    package static let help = [
        "fleet_breaker_open": "1 while the breaker of a class of calls is open, else 0.",
        "fleet_exchange_request_duration_seconds": "How long the exchange took to answer.",
        "fleet_exchange_requests_total": "Requests to the exchange by what the answer meant.",
        "fleet_job_duration_seconds": "From the beginning of a job's execution to its end.",
        "fleet_job_moves_total": "What happened to delivered jobs besides being finished.",
        "fleet_jobs_dead": "Jobs in the dead stream; every replica tells the same.",
        "fleet_jobs_delayed": "Jobs that are not due yet; every replica tells the same.",
        "fleet_jobs_in_hand": "Jobs this worker has read and not taken off their stream yet.",
        "fleet_lane_ready": "1 while the lane can work: connected, its groups there.",
        "fleet_orders_unsettled": "Orders of unknown outcome that nobody has settled; every replica tells the same.",
        "fleet_jobs_total": "Finished jobs by outcome.",
        "fleet_queue_wait_seconds": "From a job's first entry to the beginning of its first execution.",
        "fleet_redis_connection_losses_total": "Connections to Redis that broke or could not be made.",
        "fleet_stream_length": "Entries of a job stream, waiting or running; every replica tells the same.",
        "fleet_ticker_answers_total": "Tickers by where they came from: memory, Redis or the exchange.",
    ]

    let inHand: Gauge
    let redisLosses: Counter
    let moves: [Move: Counter]
    let delayed, dead, unsettled, ready: Gauge
    let requestDuration: Metrics.Timer
    let jobs: [Kind: [Outcome.Status: Counter]]
    let durations, waits: [Kind: Metrics.Timer]
    /// Entries of each stream, waiting or in flight; every replica tells the same.
    let lengths: [Kind: Gauge]
    let answers: [Outcome.Source: Counter]
    /// By verdict, `ok` or `no_answer`.
    let requests: [String: Counter]
    /// By whether the calls are trading.
    let breakers: [Bool: Gauge]

    package init(_ exchange: Exchange) {
        let label = ("exchange", exchange.rawValue)
        func table<Key: Hashable, Value>(_ keys: [Key], _ make: (Key) -> Value) -> [Key: Value] {
            Dictionary(uniqueKeysWithValues: keys.map { ($0, make($0)) })
        }
        func timers(_ name: String) -> [Kind: Metrics.Timer] {
            table(Kind.allCases) { Timer(label: name, dimensions: [label, ("kind", $0.rawValue)]) }
        }
        inHand = Gauge(label: "fleet_jobs_in_hand", dimensions: [label])
        redisLosses = Counter(label: "fleet_redis_connection_losses_total", dimensions: [label])
        moves = table(Move.allCases) {
            Counter(label: "fleet_job_moves_total", dimensions: [label, ("move", $0.rawValue)])
        }
        delayed = Gauge(label: "fleet_jobs_delayed", dimensions: [label])
        dead = Gauge(label: "fleet_jobs_dead", dimensions: [label])
        unsettled = Gauge(label: "fleet_orders_unsettled", dimensions: [label])
        ready = Gauge(label: "fleet_lane_ready", dimensions: [label])
        requestDuration = Timer(label: "fleet_exchange_request_duration_seconds", dimensions: [label])
        durations = timers("fleet_job_duration_seconds")
        waits = timers("fleet_queue_wait_seconds")
        lengths = table(Kind.allCases) {
            Gauge(label: "fleet_stream_length", dimensions: [label, ("kind", $0.rawValue)])
        }
        jobs = table(Kind.allCases) { kind in
            table(Outcome.Status.allCases) { status in
                let dimensions = [label, ("kind", kind.rawValue), ("outcome", status.rawValue)]
                return Counter(label: "fleet_jobs_total", dimensions: dimensions)
            }
        }
        answers = table(Outcome.Source.allCases) {
            Counter(label: "fleet_ticker_answers_total", dimensions: [label, ("source", $0.rawValue)])
        }
        requests = table(["ok", "no_answer"] + Verdict.allCases.map(\.rawValue)) {
            Counter(label: "fleet_exchange_requests_total", dimensions: [label, ("outcome", $0)])
        }
        breakers = table([true, false]) {
            Gauge(label: "fleet_breaker_open", dimensions: [label, ("class", $0 ? "trading" : "market")])
        }
        for gauge in [inHand, delayed, dead, unsettled, ready] + breakers.values { gauge.record(0) }
    }
}
