import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

@Suite("Troubles of Redis", .serialized, .timeLimit(.minutes(3)))
struct RedisTroubleTests {
    /// What happens in the middle of work.
    enum Trouble: CaseIterable {
        case killed, paused, frozen, replica, busy, loading, password, functions

        /// Whether it outlasts the leases of what is in hand.
        var isLong: Bool { self == .paused || self == .frozen }
    }

    private static let exchanges = [Exchange.binance, .kraken]

    private func push(_ stack: Stack, _ name: String, _ count: Int) async throws {
        for exchange in Self.exchanges {
            for index in 0..<count {
                try await stack.push(exchange, .submitOrder, Stack.market("\(name)-o-\(index)"))
                let fields = ["id": "\(name)-t-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"]
                try await stack.push(exchange, .fetchTicker, fields)
            }
        }
    }

    private func cli(_ stack: Stack, _ arguments: [String]) throws -> Program {
        let socket = stack.directory.file("redis.sock")
        return try Program(
            ["redis-cli", "-s", socket, "--no-auth-warning", "-a", "one"] + arguments, in: stack.directory)
    }

    /// Brings the trouble about and ends it, when the worker's log shows that it has met it.
    private func meet(_ trouble: Trouble, _ stack: Stack, _ worker: Stack.Worker) async throws {
        func says(_ text: String) async throws {
            try await eventually("the log says \(text)") { worker.program.errors.contains(text) }
        }
        switch trouble {
        case .killed:
            for round in 0..<5 {
                try await stack.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                // Three connections of two lanes.
                try await eventually("all are back") {
                    worker.program.errors.components(separatedBy: "redis connected").count == 7 + 6 * (round + 1)
                }
            }
        case .paused:
            try await stack.command(["CLIENT", "PAUSE", 20_000, "ALL"])
            try await says("redis away")
            _ = await stack.pipeline([["PING"]])
        case .frozen:
            let end = ContinuousClock.now + .seconds(20)
            stack.redis.withLock { $0 }.signal(SIGSTOP)
            try await says("redis away")
            #expect(try await Stack.get(worker.metricsPort, "/readyz")?.status == 503)
            try await eventually("twenty seconds are over") { ContinuousClock.now >= end }
            stack.redis.withLock { $0 }.signal(SIGCONT)
        case .replica:
            try await stack.command(["REPLICAOF", "127.0.0.1", "1"])
            try await says("READONLY")
            try await stack.command(["REPLICAOF", "NO", "ONE"])
        case .busy:
            let script = try cli(stack, ["EVAL", "while true do end", "0"])
            try await says("BUSY")
            let end = try cli(stack, ["SCRIPT", "KILL"])
            _ = try await end.exited()
            _ = try await script.exited()
        case .loading:
            for start in stride(from: 0, to: 10_000, by: 1000) {
                _ = await stack.pipeline((start..<start + 1000).map { ["SET", "filler", .int($0)] })
            }
            try await stack.restartRedis()
            try await says("LOADING")
        case .password:
            try await stack.command(["CONFIG", "SET", "requirepass", "two"])
            try await stack.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            try await eventually("it has tried to log in with the old one") {
                try await stack.command(["ACL", "LOG"]).array?.isEmpty == false
            }
            try await stack.command(["CONFIG", "SET", "requirepass", "one"])
        case .functions:
            for index in 0..<10 {
                try await stack.command(["FUNCTION", "FLUSH"])
                _ = try await stack.result(.binance, "before-t-\(index)")
            }
        }
    }

    @Test(
        "workers wait for Redis, say so once a change, stay alive, and then do every job, each order once",
        arguments: Trouble.allCases)
    func trouble(_ trouble: Trouble) async throws {
        let stack = try await Stack(
            redisOptions: ["--requirepass", "one", "--busy-reply-threshold", "100"]
                // Each command of the log takes a millisecond to load, and the server answers once a thousand.
                + (trouble == .loading ? ["--key-load-delay", "1000"] : []),
            redisUser: ":one@")
        var workers: [Stack.Worker] = []
        for _ in 0..<(trouble.isLong ? 2 : 1) {
            workers.append(try await stack.worker(["FLEET_EXCHANGES": "binance,kraken"]))
        }
        let alive = Task { [workers] in
            var sick = 0
            while !Task.isCancelled {
                for worker in workers {
                    let isWell = try await Stack.get(worker.metricsPort, "/healthz")?.status == 200
                    if !isWell, !Task.isCancelled { sick += 1 }
                }
                try? await Task.sleep(for: .milliseconds(50))
            }
            return sick
        }
        try await stack.control(#"{"latency_ms":\#(trouble.isLong ? 3000 : 50)}"#)
        try await push(stack, "before", 20)
        if trouble.isLong {
            try await eventually("both have much in hand, and orders are under way") {
                for worker in workers where try await Stack.figure(worker, "^fleet_jobs_in_hand") < 10 { return false }
                for exchange in Self.exchanges {
                    var isSending = false
                    for index in 0..<20 where !isSending {
                        isSending = try await stack.journal(exchange, "before-o-\(index)")["state"] == "sending"
                    }
                    if !isSending { return false }
                }
                return true
            }
        } else {
            _ = try await stack.result(.kraken, "before-t-0")
        }
        try await meet(trouble, stack, workers[0])
        try await push(stack, "after", 5)
        try await stack.endFaults()
        for exchange in Self.exchanges {
            for (name, count) in [("before", 20), ("after", 5)] {
                for index in 0..<count {
                    let order = try await stack.result(exchange, "\(name)-o-\(index)", within: .seconds(60))
                    #expect(order["status"].text == "ok", "\(order)")
                    #expect(try await stack.result(exchange, "\(name)-t-\(index)")["status"].text == "ok")
                    let made = try await stack.orders(exchange, jobId: "\(name)-o-\(index)")
                    let journal = try await stack.journal(exchange, "\(name)-o-\(index)")
                    #expect(made.count == 1, "\(made), \(journal)")
                }
            }
            try await eventually("nothing is left") { try await stack.backlog(exchange) == (0, 0) }
        }
        alive.cancel()
        #expect(try await alive.value == 0, "the loops turned all the time")
        for worker in workers {
            if trouble.isLong {
                #expect(try await Stack.figure(worker, "^fleet_job_moves_total.*(claimed|fenced)") == 0)
            }
            let lines = worker.program.errors.split(separator: "\n").filter { !$0.contains(#""level":"info""#) }
            // Without its time.
            let said = Dictionary(grouping: lines) { $0.drop { $0 != "," } }
            for (line, times) in said { #expect(times.count <= (trouble == .killed ? 6 : 2), "\(line)") }
            #expect(lines.count <= (trouble == .killed ? 70 : 20), "\(lines.joined(separator: "\n"))")
            #expect(!worker.program.errors.contains("\"one\"") && !worker.program.errors.contains(":one@"))
        }
    }

    @Test("a master that was demoted is left for the one that its name leads to now")
    func failover() async throws {
        let stack = try await Stack()
        let (old, name) = (stack.redis.withLock(\.socket), stack.directory.file("name.sock"))
        let next = try await RedisServer(["--appendonly", "yes"])
        symlink(old, name)
        let worker = try await stack.worker(["REDIS_URL": "unix://\(name)", "FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        unlink(name)
        symlink(next.socket, name)
        try await stack.command(["REPLICAOF", "127.0.0.1", "1"])
        let redis = try await RedisConnection.connect(
            to: try RedisURL(next.url), on: LaneActor.loop, name: "test")
        _ = try await redis.send(Stack.append(.binance, .fetchTicker, [("id", Array("x".utf8))]))
        try await eventually("the job is done at the new one") {
            try await redis.send(["GET", .text(Keys(.binance).result("x"))]).text?.contains("malformed_job") == true
        }
        redis.close()
        withExtendedLifetime((worker, next)) {}
    }

    @Test("what a connection that breaks does not answer says nothing of what Redis keeps")
    func volatility() throws {
        let lost = RedisError(.connectionLost, "it broke")
        #expect(throws: lost) { try Lane.volatility(.error(lost)) }
        let refused = RedisValue.error(RedisError(.server("NOPERM"), "INFO is not for you"))
        #expect(try Lane.volatility(refused)?.contains("cannot be read") == true)
        let info = { (policy: String, log: Int) in
            RedisValue.bytes(Array("# Memory\r\nmaxmemory_policy:\(policy)\r\naof_enabled:\(log)\r\n".utf8))
        }
        #expect(try Lane.volatility(info("noeviction", 1)) == nil)
        #expect(try Lane.volatility(info("allkeys-lru", 1))?.contains("allkeys-lru") == true)
        #expect(try Lane.volatility(info("noeviction", 0))?.contains("appendonly") == true)
    }

    @Test("a full Redis: what waits is done and its memory freed, cancels go through, no order begins")
    func full() async throws {
        let stack = try await Stack()
        let settings = ["FLEET_EXCHANGES": "binance,kraken"]
        let first = try await stack.worker(settings)
        for exchange in Self.exchanges {
            _ = try await stack.run(exchange, .submitOrder, Stack.resting("rests"))
            for kind in ["fetch_ticker", "submit_order", "cancel_order"] {
                try await stack.command(["SADD", Stack.key(exchange, "paused"), .text(kind)])
            }
        }
        try await eventually("all is paused") {
            first.program.errors.components(separatedBy: "cancel_order,fetch_ticker,submit_order").count == 3
        }
        for exchange in Self.exchanges {
            let commands = (0..<500).map { index in
                Stack.append(
                    exchange, .fetchTicker,
                    [("id", "t-\(index)"), ("symbol", "BTC/USDT"), ("note", String(repeating: "x", count: 2000))]
                        .map { ($0.0, Array($0.1.utf8)) })
            }
            #expect(await stack.pipeline(commands).allSatisfy { $0.error == nil })
            try await stack.push(
                exchange, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "rests"])
            try await stack.push(exchange, .submitOrder, Stack.market("late"))
            try await stack.enqueue(
                exchange, .cancelOrder, ["id": "c-2", "symbol": "BTC/USDT", "order_id": "never"],
                due: wallClockMs() + 500)
        }
        try await stack.command(["CONFIG", "SET", "maxmemory", "1"])
        // A worker that comes now, and one whose connections break, serve all the same.
        let second = try await stack.worker(settings)
        try await stack.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        for exchange in Self.exchanges { try await stack.command(["DEL", Stack.key(exchange, "paused")]) }
        for exchange in Self.exchanges {
            for id in ["t-0", "t-499", "c", "c-2"] {
                let result = try await stack.result(exchange, id)
                #expect(result["status"].text == "ok", "\(result)")
            }
            try await eventually("the streams are empty but for the order") {
                try await stack.backlog(exchange).entries <= 1
            }
            #expect(try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "") == 1)
        }
        try await stack.command(["CONFIG", "SET", "maxmemory", "0"])
        for exchange in Self.exchanges {
            #expect(try await stack.result(exchange, "late")["status"].text == "ok")
        }
        withExtendedLifetime((first, second)) {}
    }
}
