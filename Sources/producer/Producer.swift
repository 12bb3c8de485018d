internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

/// The command line: enqueues jobs and looks at their results and at the queues.
@main
struct Producer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "producer", abstract: "Enqueue jobs for the exchange workers and look at what became of them.",
        discussion: """
            Redis is taken from REDIS_URL (redis://127.0.0.1:6379 when unset). Exchanges: binance, bybit, kraken.
            Exit codes: 0 done, 1 the job ended otherwise than ok, 2 timed out waiting, 64 usage.

            Jobs
              producer fetch-ticker binance BTC/USDT --wait
              producer submit-order kraken BTC/USD buy limit 0.01 --price 50000 --id my-1 --wait
              producer cancel-order kraken BTC/USD my-1 --wait
              producer refresh-cache binance --every 30s --id refresh
              producer fetch-ticker bybit ETH/USDT --in 5m
              producer enqueue jobs.jsonl
              producer result kraken my-1
            Operating
              producer stats
              producer delayed list
              producer delayed remove binance refresh
              producer dead list --exchange kraken --older-than 1h
              producer dead replay --reason attempts --dry-run
              producer order show kraken my-1
              producer order settle kraken my-1 filled --note "by hand"
              producer pause binance --cancel-only
              producer resume binance

            A job whose id is queued, running or delayed is refused, and one whose result
            is still there; so is a job for a stream of FLEET_MAX_WAITING (1000000) jobs.
            """,
        subcommands: [
            FetchTicker.self, SubmitOrder.self, CancelOrder.self, RefreshCache.self, Enqueue.self, ShowResult.self,
            Stats.self, Delayed.self, Dead.self, OrderCommand.self, Pause.self, Resume.self,
        ])
}

extension Exchange: ExpressibleByArgument {}
extension Kind: ExpressibleByArgument {}

/// A point in time on the command line, in unix milliseconds: ISO 8601 with its zone, or the number itself. Smaller
/// numbers would be seconds, which nothing else here is in.
struct Instant: ExpressibleByArgument {
    let ms: Int

    init?(argument: String) {
        let date = try? Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(argument)
        let ms = date.map { ($0.timeIntervalSince1970 * 1000).rounded() } ?? Double(argument) ?? 0
        guard (1e12..<1e13).contains(ms) else { return nil }
        self.ms = Int(ms)
    }
}

/// What every job can have.
struct JobOptions: ParsableArguments {
    @Option(help: "The job's id, 1 to 64 of A-Z a-z 0-9 _ -; default: given by Redis (orders: made up).") var id:
        String?
    @Flag(help: "Wait for the result and print it.") var wait = false
    @Option(help: "Seconds to wait.") var timeout: Double = 10
    @Flag(help: "Print JSON.") var json = false
    @Option(help: "Do not execute after this many seconds from now.") var deadline: Double?
    @Option(help: "Executions to try before the job fails (default 5).") var maxAttempts: Int?
    @Option(help: "Seconds to keep the result; 0: none.") var resultTtl: Int?
    @Option(name: .customLong("in"), help: "Due after 90s, 5m, 2h or 1d; a plain number is seconds.") var delay: Span?
    @Option(help: "Due at an ISO 8601 time with its zone (2026-12-01T08:00:00Z) or unix milliseconds.") var at: Instant?
    @Option(help: "Repeat every 30s, 5m …; --id names the repetition. Not for orders and cancels.") var every: Span?

    func validate() throws {
        guard (0.001...86_400).contains(timeout) else {
            throw ValidationError("--timeout '\(timeout)': expected seconds above 0, at most 86400")
        }
        guard (deadline ?? 0) >= 0, (deadline ?? 0) < 1e9 else {
            throw ValidationError("--deadline: expected seconds from 0")
        }
        if delay != nil, at != nil { throw ValidationError("--in and --at: expected one of them") }
        guard let every else { return }
        if every.ms < 1000 { throw ValidationError("--every: expected at least 1s") }
        if wait { throw ValidationError("--wait: a job with --every never ends; expected one of them") }
        if deadline != nil {
            throw ValidationError("--deadline: would end every repetition; expected none with --every")
        }
    }

    /// Enqueues the job; with `--wait` waits for its result. Fields without a value are left out.
    func send(_ exchange: Exchange, _ kind: Kind, _ own: [(String, String?)]) async throws {
        if every != nil, kind.isTrading {
            throw ValidationError(
                "--every: orders and cancels are not repeated; expected fetch-ticker or refresh-cache")
        }
        let isDelayed = delay != nil || at != nil || every != nil
        let id = self.id ?? (kind == .submitOrder || isDelayed ? UUID().uuidString.lowercased() : nil)
        let replyTo = wait ? Keys(exchange).reply(UUID().uuidString) : nil
        let now = Int(wallClockMs())
        let deadlineMs = deadline.map { now + Int($0 * 1000) }
        if let deadlineMs, deadlineMs <= delay.map({ now + $0.ms }) ?? at?.ms ?? 0 {
            throw ValidationError("--deadline: passes before the job is due")
        }
        let fields: [(String, String)] =
            (own + [
                ("id", id), ("reply_to", replyTo), ("deadline_ms", deadlineMs.map(String.init)),
                ("max_attempts", maxAttempts.map(String.init)), ("result_ttl_s", resultTtl.map(String.init)),
            ]).compactMap { name, value in value.map { (name, $0) } }
        if let sentence = refusal(exchange, kind, fields) { throw ValidationError(sentence) }
        let call = enqueue(
            exchange, kind, fields, most: try maxWaiting(), dueAt: at?.ms ?? 0, wait: delay?.ms ?? 0,
            every: every?.ms ?? 0)
        let redis = try await openRedis()
        try await FunctionLibrary.load(into: redis)
        let answer = try await redis.send(call)
        if let id, let place = duplicate(answer) {
            if json { print(text(["id": id, "duplicate": place])) }
            complain("a job with the id '\(id)' is there already: \(place)")
            throw ExitCode(1)
        }
        let entry = answer.array?.last?.text ?? ""
        guard let replyTo else {
            let name = id ?? entry
            print(json ? text(isDelayed ? ["id": name, "delayed": true] : ["id": name, "entry": entry]) : name)
            return
        }
        let reply = try await redis.send(
            ["BLPOP", .text(replyTo), .text("\(timeout)")], timeout: .seconds(timeout + 5))
        guard let result = reply.array?.last?.text else {
            complain("no result within \(timeout) s; look later with: producer result \(exchange) \(id ?? entry)")
            throw ExitCode(2)
        }
        try show(result, asJSON: json)
    }
}

struct FetchTicker: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Fetch a market's ticker.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "BASE/QUOTE, e.g. BTC/USDT.") var symbol: String
    @Option(help: "Oldest answer that will do, ms (default 1000; 0 always asks the exchange).") var maxAgeMs: String?
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
    @Option(help: "Price of a limit order, a plain decimal.") var price: String?
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
    static let configuration = CommandConfiguration(abstract: "Cancel an order by the id of the job that submitted it.")
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
            complain("no result of '\(id)' on \(exchange): not finished, never enqueued, or past its time to live")
            throw ExitCode(1)
        }
        try show(result, asJSON: json)
    }
}
