import Exchanges
import Foundation
import NIOPosix
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

/// A fleet of its own for one test: redis-server, the exchange simulator, and the workers it asks for.
final class Stack: Sendable {
    let redis: Mutex<RedisServer>
    let simulator: Program
    let simulatorURL: String
    let directory: TemporaryDirectory
    let redisURL: String
    private let client: RedisClient
    private let keepingConnected: Task<Void, Never>
    private static let http = HTTPClient { 0 }

    /// Starts redis-server and the simulator. Workers come with `worker()`. - Throws: when one does not start.
    init(
        redisOptions: [String] = [], redisUser: String = "", limits: String = "off",
        simulatorEnvironment: [String: String] = [:]
    ) async throws {
        // Orders need a log on disk; writing it at once makes a killed server lose nothing.
        let server = try await RedisServer(["--appendonly", "yes", "--appendfsync", "always"] + redisOptions)
        let directory = server.directory
        redis = Mutex(server)
        self.directory = directory
        redisURL = "unix://\(redisUser)\(server.socket)"
        let simulator = try Program(
            [Program.binaries + "/exchange-simulator", "--port", "0", "--limits", limits],
            environment: simulatorEnvironment, in: directory)
        self.simulator = simulator
        simulatorURL = try await eventually("the simulator listens") {
            simulator.output.firstMatch(of: /listening on (http:\/\/\S+)\n/).map { String($0.1) }
        }
        let client = RedisClient(
            url: try RedisURL(redisURL), loop: MultiThreadedEventLoopGroup.singleton.next(), name: "test")
        self.client = client
        keepingConnected = Task { await client.run() }
        try await client.connected()
    }

    deinit { keepingConnected.cancel() }

    // MARK: - Redis

    @discardableResult
    func command(_ command: RedisCommand) async throws -> RedisValue { try await client.send(command) }

    func pipeline(_ commands: [RedisCommand]) async -> [RedisValue] {
        await client.pipeline(commands, timeout: .seconds(60))
    }

    /// Kills redis-server and starts another on the same socket and files.
    func restartRedis() async throws {
        redis.withLock { $0 }.kill()
        let next = try await redis.withLock { $0 }.restarted()
        redis.withLock { $0 = next }
        try await eventually("the test is connected again") { (try? await client.send(["PING"])) != nil }
    }

    // MARK: - Workers

    struct Worker: Sendable {
        let program: Program
        let metricsPort: Int
    }

    func environment(_ more: [String: String] = [:]) -> [String: String] {
        [
            "REDIS_URL": redisURL, "FLEET_SIMULATOR_URL": simulatorURL, "FLEET_METRICS_PORT": "0",
            "FLEET_LIMITS": "off", "LOG_FORMAT": "json",
        ].merging(more) { $1 }
    }

    /// Starts a worker's process and waits for nothing.
    func launch(_ more: [String: String] = [:]) throws -> Program {
        try Program([Program.binaries + "/worker"], environment: environment(more), in: directory)
    }

    /// Starts a worker and waits until all its lanes are ready.
    func worker(_ more: [String: String] = [:]) async throws -> Worker {
        let program = try launch(more)
        let port = try await eventually("the worker serves metrics: \(program.errors)") {
            program.errors.firstMatch(of: /"metrics served".*"port":"(\d+)"/).flatMap { Int($0.1) }
        }
        let worker = Worker(program: program, metricsPort: port)
        try await eventually("the worker is ready") { try await Self.get(port, "/readyz")?.status == 200 }
        return worker
    }

    /// The sum of a worker's figures whose name and labels match.
    static func figure(_ worker: Worker, _ pattern: String) async throws -> Double {
        let page = try #require(try await get(worker.metricsPort, "/metrics"))
        return try String(decoding: page.body, as: UTF8.self).split(separator: "\n")
            .filter { try $0.contains(Regex(pattern)) }.reduce(0) {
                $0 + (Double($1.split(separator: " ").last ?? "") ?? 0)
            }
    }

    static func get(_ port: Int, _ path: String) async throws -> HTTPResponse? {
        try? await http.send(FleetTests.get("http://127.0.0.1:\(port)\(path)"))
    }

    // MARK: - Jobs

    /// Adds an entry to a job stream, as any program would. - Returns: the entry's id.
    @discardableResult
    func push(_ exchange: Exchange, _ kind: Kind, _ fields: [String: String]) async throws -> String {
        try await push(exchange, kind, fields.sorted { $0.key < $1.key }.map { ($0.key, Array($0.value.utf8)) })
    }

    @discardableResult
    func push(_ exchange: Exchange, _ kind: Kind, _ fields: [(String, [UInt8])]) async throws -> String {
        try #require(try await command(Self.append(exchange, kind, fields)).text)
    }

    static func append(_ exchange: Exchange, _ kind: Kind, _ fields: [(String, [UInt8])]) -> RedisCommand {
        RedisCommand(
            ["XADD", .text("fleet:{\(exchange.rawValue)}:jobs:\(kind.rawValue)"), "*"]
                + fields.flatMap { [.text($0.0), .bytes($0.1)] })
    }

    func result(_ exchange: Exchange, _ id: String, within limit: Duration = .seconds(40)) async throws -> JSONValue {
        let text = try await eventually("the result of \(exchange) \(id)", within: limit) {
            (try? await command(["GET", .text("fleet:{\(exchange.rawValue)}:result:\(id)")]))?.text
        }
        return try JSONValue(text)
    }

    /// Adds a job and waits for its result.
    func run(_ exchange: Exchange, _ kind: Kind, _ fields: [String: String]) async throws -> JSONValue {
        let entry = try await push(exchange, kind, fields)
        return try await result(exchange, fields["id"] ?? entry)
    }

    /// A limit order far below the market, which rests.
    static func resting(_ id: String, symbol: String = "BTC/USDT") -> [String: String] {
        ["id": id, "symbol": symbol, "side": "buy", "type": "limit", "amount": "0.001", "price": "32000"]
    }

    static func market(_ id: String) -> [String: String] {
        ["id": id, "symbol": "BTC/USDT", "side": "buy", "type": "market", "amount": "0.001"]
    }

    /// How many entries the streams of an exchange hold, and how many of them are delivered and not finished.
    func backlog(_ exchange: Exchange) async throws -> (entries: Int, pending: Int) {
        var (entries, pending) = (0, 0)
        for kind in Kind.allCases {
            let key = RedisArgument.text("fleet:{\(exchange.rawValue)}:jobs:\(kind.rawValue)")
            let replies = await pipeline([["XLEN", key], ["XPENDING", key, "workers"]])
            entries += replies[0].int ?? 0
            pending += replies[1].array?.first?.int ?? 0
        }
        return (entries, pending)
    }

    func consumers(_ exchange: Exchange, _ kind: Kind) async throws -> Int {
        try await command([
            "XINFO", "CONSUMERS", .text("fleet:{\(exchange.rawValue)}:jobs:\(kind.rawValue)"), "workers",
        ])
        .array?.count ?? 0
    }

    static func key(_ exchange: Exchange, _ name: String) -> RedisArgument {
        .text("fleet:{\(exchange.rawValue)}:\(name)")
    }

    /// What `fleet_enqueue` answers. `due`: unix ms, 0 now; `every`: ms, 0 once.
    @discardableResult
    func enqueue(
        _ exchange: Exchange, _ kind: Kind, _ fields: [String: String], due: Int64 = 0, every: Int = 0
    ) async throws -> [String] {
        let reply = try await command(Self.enqueueing(exchange, kind, fields, due: due, every: every))
        return (reply.array ?? []).compactMap(\.text)
    }

    static func enqueueing(
        _ exchange: Exchange, _ kind: Kind, _ fields: [String: String], due: Int64 = 0, every: Int = 0
    ) -> RedisCommand {
        let (keys, id) = (Keys(exchange), fields["id"] ?? "")
        let head: [RedisArgument] = [
            .text(Keys.group), .text(kind.rawValue), .text(id), 1_000_000, .int(Int(due)), 0, .int(every),
        ]
        let own = fields.filter { $0.key != "id" }.flatMap { [RedisArgument.text($0.key), .text($0.value)] }
        return FunctionLibrary.command(
            "fleet_enqueue", [keys.jobs(kind), keys.delayed, keys.marker(id), keys.result(id)], head + own)
    }

    /// Name and value pairs, as a stream entry and a hash have them.
    static func pairs(_ list: [RedisValue]) -> [String: String] {
        let texts = list.map { $0.text ?? $0.int.map(String.init) ?? "" }
        return Dictionary(stride(from: 0, to: texts.count - 1, by: 2).map { (texts[$0], texts[$0 + 1]) }) { $1 }
    }

    /// The dead jobs, oldest first; `entry` is added to the fields of each.
    func dead(_ exchange: Exchange) async throws -> [[String: String]] {
        (try await command(["XRANGE", Self.key(exchange, "dead"), "-", "+"]).array ?? []).compactMap(\.array).map {
            Self.pairs($0[1].array ?? []).merging(["entry": $0[0].text ?? ""]) { $1 }
        }
    }

    func journal(_ exchange: Exchange, _ id: String) async throws -> [String: String] {
        Self.pairs(try await command(["HGETALL", Self.key(exchange, "order:" + id)]).array ?? [])
    }

    /// Makes a journal by hand.
    func journal(_ exchange: Exchange, _ id: String, _ fields: [String: String]) async throws {
        try await command(
            RedisCommand(["HSET", Self.key(exchange, "order:" + id)]) + fields.flatMap { [$0.key, $0.value] })
    }

    /// How many entries have ever been added to a stream.
    func added(_ exchange: Exchange, _ kind: Kind) async throws -> Int {
        let info = try await command(["XINFO", "STREAM", Self.key(exchange, "jobs:" + kind.rawValue)])
        return Int(Self.pairs(info.array ?? [])["entries-added"] ?? "") ?? 0
    }

    // MARK: - Simulator

    /// Switches faults of the simulator, e.g. `{"error_rate":1}`.
    func control(_ faults: String) async throws {
        let answer = try await Self.http.send(post(simulatorURL + "/control", faults))
        try #require(answer.status == 200, "\(String(decoding: answer.body, as: UTF8.self))")
    }

    func endFaults() async throws { _ = try await Self.http.send(delete(simulatorURL + "/control")) }

    private func audit(_ path: String) async throws -> JSONValue {
        let answer = try await Self.http.send(FleetTests.get(simulatorURL + "/control/" + path))
        return try JSONValue(String(decoding: answer.body, as: UTF8.self))
    }

    /// The orders that the exchange has accepted, those of one job where its id is given.
    func orders(_ exchange: Exchange, jobId: String? = nil) async throws -> [JSONValue] {
        let all = try await audit("orders")[exchange.rawValue]["orders"].list
        guard let jobId else { return all }
        let apis = try Configuration([:]).apis
        let id = apis.first { $0.exchange == exchange }?.clientOrderId(jobId: jobId)
        return all.filter { $0["client_order_id"].text == id }
    }

    /// What the simulator has counted: `refused_for_limits`, `over_limit`, `bans`, `requests` …
    func statistics(_ exchange: Exchange) async throws -> JSONValue { try await audit("stats")[exchange.rawValue] }

    /// How many requests have come to the endpoints whose name contains the text.
    func requests(_ exchange: Exchange, _ endpoint: String) async throws -> Int {
        try await audit("stats")[exchange.rawValue]["requests"].members
            .filter { $0.key.contains(endpoint) }.reduce(0) { $0 + ($1.value.int ?? 0) }
    }

    static let orderEndpoint: [Exchange: String] = [
        .binance: "POST /api/v3/order", .bybit: "order/create", .kraken: "AddOrder",
    ]
    static let tickerEndpoint: [Exchange: String] = [
        .binance: "ticker/24hr", .bybit: "market/tickers", .kraken: "public/Ticker",
    ]

    // MARK: - Producer

    struct Finished: Sendable {
        let status: Int32
        let output, errors: String
    }

    func producer(_ arguments: [String], input: String = "/dev/null", _ more: [String: String] = [:]) async throws
        -> Finished
    {
        let program = try Program(
            [Program.binaries + "/producer"] + arguments, environment: ["REDIS_URL": redisURL].merging(more) { $1 },
            input: input, in: directory)
        let status = try await program.exited()
        return Finished(status: status, output: program.output, errors: program.errors)
    }
}
