import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

/// How hard the crash tests try: for seconds within `swift test`, for minutes with `deploy/torture`.
enum Torture {
    private static let environment = ProcessInfo.processInfo.environment
    static let minutes = environment["FLEET_TORTURE_MINUTES"].flatMap { Int($0) } ?? 0
    static let seed = environment["FLEET_TORTURE_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...999_999)

    /// Seconds of load: of the bounded form, or of the long one.
    static func load(_ seconds: Int) -> Int { minutes > 0 ? minutes * 60 : seconds }
}

/// SplitMix64: the same choices again for the same seed.
private struct Dice: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var bits = (state ^ (state >> 30)) &* 0xbf58_476d_1ce4_e5b9
        bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
        return bits ^ (bits >> 31)
    }
}

/// Workers that are killed and replaced while jobs of all kinds are pushed at them, and the books kept of it.
/// Times are unix milliseconds.
actor Crowd {
    struct Pushed: Sendable {
        let exchange: Exchange
        let kind: Kind
        let id: String
        /// Of a cancel: the order's job id.
        let orderId: String
        let atMs: Int64
    }

    let stack: Stack
    /// Results must outlast the test.
    private let environment = ["FLEET_RESULT_TTL": "86400"]
    /// Of a hundred jobs, how many submit orders; half as many cancel one.
    private let orders: Int
    private var dice: Dice
    private var workers: [Program] = []
    private var resting: [(Exchange, String)] = []
    /// The jobs that Redis has acknowledged.
    private(set) var pushed: [Pushed] = []
    private var count = 0
    private var kills = 0
    /// When each job was last found pending for a worker just killed, and whether its order may have been sent then.
    private var orphaned: [String: (killedMs: Int64, mayBeSent: Bool)] = [:]

    init(_ stack: Stack, workers: Int = 4, orders: Int, seed: UInt64 = Torture.seed) async throws {
        (self.stack, self.orders, dice) = (stack, orders, Dice(state: seed))
        for _ in 0..<workers { self.workers.append(try stack.launch(environment)) }
    }

    /// Pushes the jobs spread over so many seconds, and calls `everySecond` meanwhile and for some seconds more.
    func storm(
        jobs: Int, over seconds: Int, andFor more: Int = 0, everySecond: (_ second: Int) async throws -> Void
    ) async throws {
        let (start, ticks) = (ContinuousClock.now, seconds * 10)
        for tick in 0..<(seconds + more) * 10 {
            if tick < ticks { await push(jobs * (tick + 1) / ticks - jobs * tick / ticks) }
            if tick % 10 == 9 { try await everySecond(tick / 10) }
            // Not a wait for something: the pace of the load.
            try await Task.sleep(until: start + .milliseconds(100) * (tick + 1))
        }
    }

    private func push(_ jobs: Int) async {
        let next = (0..<jobs).map { _ in job() }
        let replies = await stack.pipeline(
            next.map { job, fields in
                Stack.append(job.exchange, job.kind, fields.map { ($0.key, Array($0.value.utf8)) })
            })
        for ((job, _), reply) in zip(next, replies) where reply.error == nil { pushed.append(job) }
    }

    private func job() -> (Pushed, [String: String]) {
        let symbols = ["BTC/USDT", "ETH/USDT", "LTC/USDT"]
        count += 1
        var (exchange, kind, orderId) = (Exchange.allCases[count % 3], Kind.fetchTicker, "")
        var fields = ["id": "j-\(count)", "symbol": symbols.randomElement(using: &dice) ?? ""]
        let roll = Int.random(in: 0..<200, using: &dice)
        if roll < orders * 2 {
            kind = .submitOrder
            let isMarket = Bool.random(using: &dice)
            fields = isMarket ? Stack.market("j-\(count)") : Stack.resting("j-\(count)")
            if !isMarket { resting.append((exchange, "j-\(count)")) }
            if roll < orders / 5 { fields["deadline_ms"] = "\(wallClockMs() + 5000)" }
        } else if roll < orders * 3, let index = resting.indices.randomElement(using: &dice) {
            kind = .cancelOrder
            (exchange, orderId) = resting.remove(at: index)
            fields = ["id": "j-\(count)", "symbol": "BTC/USDT", "order_id": orderId]
        } else if roll >= 195 {
            kind = .refreshCache
            fields = ["id": "j-\(count)", "symbols": symbols.joined(separator: ",")]
        } else if Bool.random(using: &dice) {
            fields["max_age_ms"] = "0"
        }
        let pushed = Pushed(exchange: exchange, kind: kind, id: "j-\(count)", orderId: orderId, atMs: wallClockMs())
        return (pushed, fields)
    }

    /// Kills a worker with SIGKILL, starts another at once, and notes which jobs the dead one leaves behind.
    func killOne() async throws {
        let index = Int.random(in: workers.indices, using: &dice)
        let consumer = workers[index].errors.firstMatch(of: /"consumer":"([^"]+)"/).map { String($0.1) }
        workers[index].stop()
        let killedMs = wallClockMs()
        kills += 1
        workers[index] = try stack.launch(environment)
        guard let consumer else { return }
        let streams = Exchange.allCases.flatMap { exchange in Kind.allCases.map { Keys(exchange).jobs($0) } }
        let pending = await stack.pipeline(
            streams.map { ["XPENDING", .text($0), .text(Keys.group), "-", "+", 100_000, .text(consumer)] })
        let entries = zip(streams, pending).flatMap { stream, reply in
            (reply.array ?? []).compactMap { $0.array?.first?.text }.map { (stream, $0) }
        }
        let jobs = await stack.pipeline(entries.map { ["XRANGE", .text($0.0), .text($0.1), .text($0.1)] })
        for ((stream, _), job) in zip(entries, jobs) {
            let fields = Stack.pairs(job.array?.first?.array?.last?.array ?? [])
            guard let id = fields["id"] else { continue }
            let journal = stream.prefix { $0 != "}" } + "}:order:" + (fields["order_id"] ?? id)
            let state = try await stack.command(["HGET", .text(String(journal)), "state"]).text
            orphaned[id] = (killedMs, state == "sending")
        }
    }

    /// Waits until every job has a result and nothing is left in a stream or delayed. - Returns: what is left.
    func calm(within limit: Duration) async throws -> String {
        var left = "not looked yet"
        do {
            try await eventually("all is done", within: limit) {
                let (entries, pending, delayed) = try await backlog()
                left = entries + delayed == 0 ? "" : "\(entries) entries, \(pending) pending, \(delayed) delayed"
                if !left.isEmpty { return false }
                let open = try await results().count { $0.1 == nil }
                left = open == 0 ? "" : "\(open) jobs without a result"
                return open == 0
            }
        } catch is NeverHappened { left += await pending() }
        return left
    }

    /// Who has what, for how long: entry, consumer, milliseconds since its last sign of life, deliveries.
    private func pending() async -> String {
        let streams = Exchange.allCases.flatMap { exchange in Kind.allCases.map { Keys(exchange).jobs($0) } }
        let replies = await stack.pipeline(streams.map { ["XPENDING", .text($0), .text(Keys.group), "-", "+", 5] })
        return zip(streams, replies).filter { $1.array?.isEmpty != true }.map { ", \($0) \($1)" }.joined()
    }

    private func backlog() async throws -> (entries: Int, pending: Int, delayed: Int) {
        var sum = (entries: 0, pending: 0, delayed: 0)
        for exchange in Exchange.allCases {
            let (entries, pending) = try await stack.backlog(exchange)
            let delayed = try await stack.command(["ZCARD", .text(Keys(exchange).delayed)]).int ?? 0
            sum = (sum.entries + entries, sum.pending + pending, sum.delayed + delayed)
        }
        return sum
    }

    private func results() async throws -> [(Pushed, JSONValue?)] {
        var found: [(Pushed, JSONValue?)] = []
        for start in stride(from: 0, to: pushed.count, by: 1000) {
            let page = pushed[start..<min(start + 1000, pushed.count)]
            let replies = await stack.pipeline(page.map { ["GET", .text(Keys($0.exchange).result($0.id))] })
            found += try zip(page, replies).map { ($0, try $1.text.map { try JSONValue($0) }) }
        }
        return found
    }

    // MARK: - The books

    /// What became of the jobs, by their results and by what the exchanges say.
    struct Books: Sendable {
        var jobs = 0
        var kills = 0
        /// Acknowledged, and without a result.
        var lost: [Pushed] = []
        /// Executed more than once, with the time of the first execution.
        var twice: [(id: String, firstMs: Int)] = []
        /// Results that the exchange contradicts.
        var wrong: [String] = []
        var statuses: [Kind: [String: Int]] = [:]
        /// Given up because they were in the hands of too many killed workers.
        var poisoned: [Exchange: Int] = [:]
        /// From the kill of its worker to the end of a job: tickers and refreshes, orders and cancels, and those of
        /// them whose order may have been sent, so that its exchange may have to be asked for twenty seconds.
        var market: [Int] = []
        var trading: [Int] = []
        var sent: [Int] = []

        func count(_ status: String) -> Int { statuses.values.reduce(0) { $0 + ($1[status] ?? 0) } }

        /// The figures, a line each, in a frame by which scripts find them.
        func table(_ title: String) -> String {
            func spread(_ times: [Int]) -> String {
                let sorted = times.sorted()
                guard let most = sorted.last else { return "none" }
                let at = { (part: Double) in sorted[Int(Double(sorted.count - 1) * part)] }
                return "\(sorted.count) jobs, p50 \(at(0.5)) ms, p99 \(at(0.99)) ms, max \(most) ms"
            }
            var lines = [
                "\(title), seed \(Torture.seed)",
                "jobs \(jobs), lost \(lost.count), executed twice \(twice.count), kills \(kills)",
                "recovery of tickers and refreshes: \(spread(market))",
                "recovery of orders and cancels: \(spread(trading))",
                "recovery of those whose order may have been sent: \(spread(sent))",
            ]
            for kind in Kind.allCases {
                let counts = (statuses[kind] ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
                lines.append("\(kind.rawValue): \(counts.joined(separator: ", "))")
            }
            for (exchange, count) in poisoned { lines.append("taken for poison at \(exchange): \(count)") }
            return lines.map { "│ " + $0 }.joined(separator: "\n") + "\n"
        }
    }

    /// Closes the books: each job's result beside what the exchange has, fetched once.
    func books() async throws -> Books {
        // Before the exchanges are asked, so that what goes on meanwhile contradicts nothing.
        let results = try await results()
        var made: [Exchange: [String: [JSONValue]]] = [:]
        for exchange in Exchange.allCases {
            made[exchange] = Dictionary(grouping: try await stack.orders(exchange)) {
                $0["client_order_id"].text ?? ""
            }
        }
        let apis = try Configuration([:]).apis
        var books = Books()
        (books.jobs, books.kills) = (pushed.count, kills)
        for (job, result) in results {
            let api = apis.first { $0.exchange == job.exchange }
            let orderId = job.kind == .cancelOrder ? job.orderId : job.id
            let found = made[job.exchange]?[api?.clientOrderId(jobId: orderId) ?? ""] ?? []
            if job.kind == .submitOrder, found.count > 1 {
                books.twice.append((job.id, found.compactMap { $0["accepted_ms"].int }.min() ?? 0))
            }
            guard let result, let status = result["status"].text else {
                books.lost.append(job)
                continue
            }
            books.statuses[job.kind, default: [:]][status, default: 0] += 1
            if result["error"]["message"].text?.contains("without an end: it may kill") == true {
                books.poisoned[job.exchange, default: 0] += 1
            }
            if let contradiction = Self.contradiction(job.kind, status, result["data"]["status"].text, found.last) {
                books.wrong.append("\(job.exchange) \(contradiction): \(result)")
            }
            if let (killedMs, mayBeSent) = orphaned[job.id], let endMs = result["finished_ms"].int, endMs > killedMs {
                let times = !job.kind.isTrading ? \Books.market : mayBeSent ? \.sent : \.trading
                books[keyPath: times].append(endMs - Int(killedMs))
            }
        }
        return books
    }

    /// Why a result is not true, if it is not.
    private static func contradiction(
        _ kind: Kind, _ status: String, _ ended: String?, _ order: JSONValue?
    ) -> String? {
        switch (kind, status) {
        case (.submitOrder, "ok"):
            order == nil && ended != "canceled" ? "ok, and the exchange never had it" : nil
        case (.submitOrder, _): order == nil ? nil : "\(status), and the exchange has it"
        case (.cancelOrder, "ok"): order?["status"].text == "open" ? "canceled, and it is open" : nil
        default: nil
        }
    }
}
