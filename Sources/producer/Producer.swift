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

              producer fetch-ticker binance BTC/USDT --wait
              producer submit-order kraken BTC/USD buy limit 0.01 --price 50000 --id my-1 --wait
              producer cancel-order kraken BTC/USD my-1 --wait
              producer enqueue jobs.jsonl
              producer stats
            """,
        subcommands: [
            FetchTicker.self, SubmitOrder.self, CancelOrder.self, RefreshCache.self, ShowResult.self, Stats.self,
            Enqueue.self,
        ])
}

extension Exchange: ExpressibleByArgument {}

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

    func validate() throws {
        guard (0.001...86_400).contains(timeout) else {
            throw ValidationError("--timeout '\(timeout)': expected seconds above 0, at most 86400")
        }
        guard (deadline ?? 0) >= 0, (deadline ?? 0) < 1e9 else {
            throw ValidationError("--deadline: expected seconds from 0")
        }
    }

    /// Enqueues the job; with `--wait` waits for its result. Fields without a value are left out.
    func send(_ exchange: Exchange, _ kind: Kind, _ own: [(String, String?)]) async throws {
        let id = self.id ?? (kind == .submitOrder ? UUID().uuidString.lowercased() : nil)
        let keys = Keys(exchange)
        let replyTo = wait ? keys.reply(UUID().uuidString) : nil
        let deadlineMs = deadline.map { "\(wallClockMs() + Int64($0 * 1000))" }
        let fields: [(String, String)] =
            (own + [
                ("id", id), ("reply_to", replyTo), ("deadline_ms", deadlineMs),
                ("max_attempts", maxAttempts.map(String.init)), ("result_ttl_s", resultTtl.map(String.init)),
            ]).compactMap { name, value in value.map { (name, $0) } }
        if let sentence = refusal(exchange, kind, fields) { throw ValidationError(sentence) }
        let redis = try await openRedis()
        defer { redis.close() }
        let entry = try await redis.send(append(exchange, kind, fields)).text ?? ""
        guard let replyTo else {
            let name = id ?? entry
            print(json ? #"{"id":\#(quoted(name)),"entry":\#(quoted(entry))}"# : name)
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
        defer { redis.close() }
        guard let result = try await redis.send(["GET", .text(Keys(exchange).result(id))]).text else {
            complain("no result of '\(id)' on \(exchange): not finished, never enqueued, or past its time to live")
            throw ExitCode(1)
        }
        try show(result, asJSON: json)
    }
}
