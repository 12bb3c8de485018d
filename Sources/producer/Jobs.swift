internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

/// What every job can have. What its worker would judge is read unconditionally: so a negative number is no option, and
/// is refused for what it is.
struct JobOptions: ParsableArguments {
    @Option(help: "The job's id, 1 to 64 of A-Z a-z 0-9 _ -; default: from Redis (orders: made up).") var id: String?
    @Flag(help: "Wait for the result and print it.") var wait = false
    @Option(help: "Seconds to wait (default 10), or 5m, 2h, 1d.") var timeout: Span?
    @Flag(help: "Print JSON.") var json = false
    @Option(help: "Do not execute after this many seconds from now, or 5m, 2h, 1d.") var deadline: Span?
    @Option(parsing: .unconditional, help: "Executions to try before the job fails (default 5).")
    var maxAttempts: String?
    @Option(parsing: .unconditional, help: "Seconds to keep the result; 0: none.") var resultTtl: String?
    @Option(name: .customLong("in"), help: "Due after 90s, 5m, 2h or 1d; a plain number is seconds.") var delay: Span?
    @Option(help: "Due at an ISO 8601 time with its zone (2026-12-01T08:00:00Z) or unix milliseconds.") var at: Instant?
    @Option(help: "Repeat every 30s, 5m …; --id names the repetition. Not for orders and cancels.") var every: Span?

    func validate() throws { try check(nil) }

    /// Says what is wrong with the options; where it is given also by what time it is, in unix milliseconds.
    private func check(_ now: Int?) throws {
        let due = delay?.ms ?? at.flatMap { at in now.map { at.ms - $0 } } ?? 0
        let past = "--at: '\(utc(at?.ms ?? 0))'; expected a time that is to come, or at most a minute ago"
        let faults = [
            (id == "", "--id: ''; expected 1 to 64 of A-Z a-z 0-9 _ -"),
            (delay != nil && at != nil, "--in and --at: expected one of them"), (due < -60_000, past),
            (deadline?.ms ?? .max <= due, "--deadline: passes before the job is due"),
            (every?.ms ?? .max < 1000, "--every: expected at least 1s"),
            (every != nil && wait, "--wait: a job with --every never ends; expected one of them"),
            (every != nil && deadline != nil, "--deadline: would end every repetition; expected none with --every"),
        ]
        if let fault = faults.first(where: \.0) { throw ValidationError(fault.1) }
    }

    /// Enqueues the job; with `--wait` waits for its result, or takes the one that is there already.
    func send(_ exchange: Exchange, _ kind: Kind, _ own: [(String, String?)]) async throws {
        if every != nil, kind.isTrading {
            throw ValidationError(
                "--every: orders and cancels are not repeated; expected fetch-ticker or refresh-cache")
        }
        let isDelayed = delay != nil || at != nil || every != nil
        let id = self.id ?? (kind == .submitOrder || isDelayed ? UUID().uuidString.lowercased() : nil)
        let replyTo = wait ? Keys(exchange).reply(UUID().uuidString) : nil
        func call() throws -> RedisCommand {
            let more = [
                ("id", id), ("reply_to", replyTo), ("deadline_ms", deadline.map { "\(Int(clock.now()) + $0.ms)" }),
                ("max_attempts", maxAttempts), ("result_ttl_s", resultTtl),
            ]
            return try enqueue(
                exchange, kind, own + more, most: settings().maxWaiting, dueAt: at?.ms ?? 0, wait: delay?.ms ?? 0,
                every: every?.ms ?? 0)
        }
        // What is wrong with the job is said without Redis; what depends on the time goes by Redis' clock.
        _ = try call()
        let redis = try await openRedis()
        try check(Int(clock.now()))
        try await FunctionLibrary.load(into: redis)
        // Nobody else knows it, and its result may not be waited for to the end.
        if wait, self.id == nil, let id { complain("the job's id is \(id)") }
        let answer: RedisValue
        let job = try call()
        do throws(RedisError) { answer = try await redis.send(job) } catch {
            if case .server = error.code { throw error }
            let again =
                id.map { "; ask with: producer result \(exchange) \($0), or send it again with --id \($0)" } ?? ""
            throw Failure("\(error): the job may be enqueued or not\(again)")
        }
        if let id, let place = duplicate(answer) {
            let refusal = "a job with the id '\(id)' is there already: \(place)"
            let result = wait ? try await redis.look("GET", Keys(exchange).result(id)).text : nil
            // Another kind's result says nothing of this job.
            if let result, jsonObject(result)["kind"] as? String == kind.rawValue {
                complain(refusal)
                return try show(result, asJSON: json)
            }
            if json { print(jsonText(["id": id, "duplicate": place])) }
            throw Failure(refusal)
        }
        let entry = answer.array?.last?.text ?? ""
        let name = id ?? entry
        guard let replyTo else {
            let members: [String: Any] = isDelayed ? ["id": name, "delayed": true] : ["id": name, "entry": entry]
            return print(json ? jsonText(members) : name)
        }
        let seconds = Double(timeout?.ms ?? 10_000) / 1000
        let later = "look later with: producer result \(exchange) \(name)"
        let reply: RedisValue
        do throws(RedisError) {
            reply = try await redis.send(["BLPOP", .text(replyTo), "\(seconds)"], timeout: .seconds(seconds + 5))
        } catch {
            throw Failure("\(error); \(later)")
        }
        guard let result = reply.array?.last?.text else {
            complain("no result within \(seconds) s; \(later)")
            throw ExitCode(2)
        }
        try show(result, asJSON: json)
    }
}

struct FetchTicker: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Fetch a market's ticker.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "BASE/QUOTE, e.g. BTC/USDT.") var symbol: String
    @Option(parsing: .unconditional, help: "Oldest answer that will do, ms (default 1000; 0 always asks the exchange).")
    var maxAgeMs: String?
    @OptionGroup var options: JobOptions

    func run() async throws {
        try await options.send(exchange, .fetchTicker, [("symbol", symbol), ("max_age_ms", maxAgeMs)])
    }
}

struct SubmitOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Submit an order; its job id is its identity.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "BASE/QUOTE, e.g. BTC/USDT.") var symbol: String
    @Argument(help: "buy or sell.") var side: String
    @Argument(help: "market or limit.") var type: String
    @Argument(help: "Amount in the base currency, a plain decimal.") var amount: String
    @Option(parsing: .unconditional, help: "Price of a limit order, a plain decimal.") var price: String?
    @Option(help: "GTC (default), IOC, FOK or PO (post only).") var timeInForce: String?
    @OptionGroup var options: JobOptions

    func run() async throws {
        let fields = [
            ("symbol", symbol), ("side", side), ("type", type), ("amount", amount), ("price", price),
            ("time_in_force", timeInForce),
        ]
        try await options.send(exchange, .submitOrder, fields)
    }
}

struct CancelOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Cancel an order by the id of the job that submitted it.",
        discussion: """
            An order that has not been sent is prevented for seven days, also one that nobody knows of. So a cancel by a
            mistyped id ends ok too: its result is a canceled order without exchange_order_id.
            """)
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "BASE/QUOTE, e.g. BTC/USDT.") var symbol: String
    @Argument(help: "The job id under which the order was submitted.") var orderId: String
    @OptionGroup var options: JobOptions

    func run() async throws {
        try await options.send(exchange, .cancelOrder, [("symbol", symbol), ("order_id", orderId)])
    }
}

struct RefreshCache: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Fetch tickers into the caches.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "Symbols; none: all that were asked for lately.") var symbols: [String] = []
    @OptionGroup var options: JobOptions

    func run() async throws {
        let list = symbols.isEmpty ? nil : symbols.joined(separator: ",")
        try await options.send(exchange, .refreshCache, [("symbols", list)])
    }
}

struct ShowResult: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "result", abstract: "Show a job's result.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "The job's id.") var id: String
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let redis = try await openRedis()
        guard let result = try await redis.send(["GET", .text(Keys(exchange).result(id))]).text else {
            throw Failure(
                "no result of '\(id)' on \(exchange): not finished, never enqueued, or past its time to live")
        }
        try show(result, asJSON: json)
    }
}
