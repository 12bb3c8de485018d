internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Redis

struct Pause: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Stop serving an exchange, or one kind of its jobs; what runs goes on, what comes waits.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "One kind, e.g. fetch_ticker; none: all.") var kind: Kind?
    @Flag(help: "Stop everything but cancels.") var cancelOnly = false

    func validate() throws {
        if cancelOnly, kind != nil {
            throw ValidationError("--cancel-only stops three kinds; expected no kind with it")
        }
    }

    func run() async throws {
        let key = RedisArgument.text(Keys(exchange).paused)
        let kinds = kind.map { [$0] } ?? Kind.allCases.filter { !cancelOnly || $0 != .cancelOrder }
        let free: [RedisCommand] = cancelOnly ? [["SREM", key, .text(Kind.cancelOrder.rawValue)]] : []
        try await change(exchange, free + [["SADD", key] + kinds.map(\.rawValue)])
    }
}

struct Resume: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Serve an exchange again, or one kind of its jobs.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "One kind, e.g. fetch_ticker; none: all.") var kind: Kind?

    func run() async throws {
        let key = RedisArgument.text(Keys(exchange).paused)
        try await change(exchange, [kind.map { ["SREM", key, .text($0.rawValue)] } ?? ["DEL", key]])
    }
}

/// Changes what is paused and prints what is then.
private func change(_ exchange: Exchange, _ commands: [RedisCommand]) async throws {
    let redis = try await openRedis()
    let replies = await redis.pipeline(commands + [["SMEMBERS", .text(Keys(exchange).paused)]])
    let kinds = try replies.map { try $0.get() }.last?.array?.compactMap(\.text).sorted() ?? []
    print("\(exchange) paused: \(kinds.isEmpty ? "nothing" : kinds.joined(separator: ", "))")
}
