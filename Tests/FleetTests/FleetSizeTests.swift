import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Several workers", .serialized, .timeLimit(.minutes(2)))
struct FleetSizeTests {
    @Test("two workers share ten thousand ticker jobs: a result for each, nothing left, and they leave nothing behind")
    func tenThousand() async throws {
        let stack = try await Stack()
        let workers = [try await stack.worker(), try await stack.worker()]
        let symbols = ["BTC/USDT", "ETH/USDT", "LTC/USDT"]
        let count = 10_000
        for start in stride(from: 0, to: count, by: 1000) {
            let commands = (start..<start + 1000).map { index in
                Stack.append(
                    Exchange.allCases[index % 3], .fetchTicker,
                    [("symbol", Array(symbols[index / 3 % 3].utf8)), ("id", Array("n-\(index)".utf8))])
            }
            #expect(await stack.pipeline(commands).allSatisfy { $0.error == nil })
        }
        try await eventually("the streams are empty", within: .seconds(80)) {
            for exchange in Exchange.allCases {
                let left = try await stack.backlog(exchange)
                if left.entries > 0 || left.pending > 0 { return false }
            }
            return true
        }
        var consumers: Set<String> = []
        var wrong: [JSONValue] = []
        for start in stride(from: 0, to: count, by: 1000) {
            let keys = (start..<start + 1000).map { "fleet:{\(Exchange.allCases[$0 % 3].rawValue)}:result:n-\($0)" }
            for (key, reply) in zip(keys, await stack.pipeline(keys.map { ["GET", .text($0)] })) {
                let result = try JSONValue(try #require(reply.text, "\(key)"))
                if result["status"].text != "ok" { wrong.append(result) }
                consumers.insert(result["worker"].text ?? "")
            }
        }
        #expect(wrong.isEmpty, "\(wrong.count) of them, such as \(wrong.prefix(1))")
        #expect(consumers.count == 2, "both have worked")
        // Jobs that share a symbol share requests.
        for exchange in Exchange.allCases {
            #expect(try await stack.requests(exchange, Stack.tickerEndpoint[exchange] ?? "") < 1000)
        }

        for worker in workers { worker.program.signal(SIGTERM) }
        for worker in workers { #expect(try await worker.program.exited() == 0) }
        for exchange in Exchange.allCases {
            for kind in Kind.allCases { #expect(try await stack.consumers(exchange, kind) == 0) }
        }
    }

    @Test("any concurrency serves every kind", arguments: [1, 100_000])
    func anyConcurrency(_ concurrency: Int) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker([
            "FLEET_EXCHANGES": "binance", "FLEET_CONCURRENCY": "\(concurrency)",
        ])
        let cancel = ["id": "c", "symbol": "BTC/USDT", "order_id": "o"]
        for (kind, fields) in [
            (Kind.submitOrder, Stack.resting("o")), (.cancelOrder, cancel),
            (.fetchTicker, ["id": "t", "symbol": "BTC/USDT"]), (.refreshCache, ["id": "r", "symbols": "BTC/USDT"]),
        ] {
            #expect(try await stack.run(.binance, kind, fields)["status"].text == "ok")
        }
        withExtendedLifetime(worker) {}
    }

    @Test("SIGTERM of a busy worker while another runs: every job is done, each order once, and it ends with code 0")
    func stopBusyWorker() async throws {
        let stack = try await Stack()
        let settings = ["FLEET_EXCHANGES": "binance,kraken", "FLEET_CONCURRENCY": "16"]
        let first = try await stack.worker(settings)
        try await stack.control(#"{"latency_ms":200}"#)
        for exchange in [Exchange.binance, .kraken] {
            for index in 0..<15 {
                try await stack.push(exchange, .submitOrder, Stack.market("o-\(index)"))
                try await stack.push(
                    exchange, .fetchTicker, ["id": "t-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"])
            }
        }
        let second = try await stack.worker(settings)
        try await eventually("the first is busy") { try await stack.requests(.binance, "POST /api/v3/order") > 0 }
        first.program.signal(SIGTERM)
        #expect(try await first.program.exited() == 0)
        for exchange in [Exchange.binance, .kraken] {
            for index in 0..<15 {
                let order = try await stack.result(exchange, "o-\(index)", within: .seconds(60))
                #expect(order["status"].text == "ok", "\(order)")
                #expect(try await stack.orders(exchange, jobId: "o-\(index)").count == 1)
                #expect(try await stack.result(exchange, "t-\(index)")["status"].text == "ok")
            }
        }
        #expect(try await stack.consumers(.binance, .submitOrder) == 1)
        withExtendedLifetime(second) {}
    }

    @Test("what reaches a worker after SIGTERM is handed back, not begun")
    func afterSignal() async throws {
        // Where the read that blocks was over before the job came, on a slow machine, once more.
        for _ in 0..<3 {
            let stack = try await Stack()
            let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "LOG_LEVEL": "debug"])
            _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
            worker.program.signal(SIGTERM)
            try await eventually("it stops") { worker.program.errors.contains("Signal caught") }
            try await stack.push(.binance, .submitOrder, Stack.resting("late"))
            #expect(try await worker.program.exited() == 0)
            #expect(try await stack.orders(.binance).count == 1)
            #expect(try await stack.backlog(.binance) == (1, 0))
            if worker.program.errors.contains("handedBack") { return }
        }
        Issue.record("no job came in time")
    }

    @Test("a worker that stops hands waiting jobs back with their ids and without an attempt")
    func handBack() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "bybit"])
        _ = try await stack.run(.bybit, .fetchTicker, ["symbol": "BTC/USDT"])
        try await stack.control(#"{"rate_limit_rate":1,"retry_after_s":30}"#)
        let entry = try await stack.push(
            .bybit, .fetchTicker, ["symbol": "ETH/USDT", "max_age_ms": "0", "note": "kept"])
        let limits = try await stack.requests(.bybit, "market/tickers")
        try await eventually("the job was tried") { try await stack.requests(.bybit, "market/tickers") >= limits + 1 }
        worker.program.signal(SIGTERM)
        #expect(try await worker.program.exited() == 0)
        try await stack.endFaults()
        let next = try await stack.worker(["FLEET_EXCHANGES": "bybit"])
        let result = try await stack.result(.bybit, entry)
        #expect(result["status"].text == "ok")
        #expect(result["id"].text == entry)
        #expect(result["enqueued_ms"].int.map(String.init) == entry.split(separator: "-").first.map(String.init))
        withExtendedLifetime(next) {}
    }

    @Test("with limits on, a worker keeps within what the simulator enforces")
    func limitsKept() async throws {
        let stack = try await Stack(limits: "on")
        let worker = try await stack.worker(["FLEET_LIMITS": "on"])
        for exchange in Exchange.allCases {
            for index in 0..<8 {
                try await stack.push(
                    exchange, .fetchTicker, ["id": "l-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"])
            }
        }
        for exchange in Exchange.allCases {
            for index in 0..<8 { #expect(try await stack.result(exchange, "l-\(index)")["status"].text == "ok") }
        }
        #expect(!worker.program.errors.contains("rate_limited"))
    }

    @Test("faulty settings end a worker with code 64 and all faults on its error output")
    func faultySettings() async throws {
        let directory = try TemporaryDirectory()
        let program = try Program(
            [Program.binaries + "/worker"],
            environment: ["FLEET_MODE": "x", "FLEET_TYPO": "1", "REDIS_URL": "http://:pw@h"],
            in: directory)
        #expect(try await program.exited() == 64)
        for name in ["FLEET_MODE", "FLEET_TYPO", "REDIS_URL"] { #expect(program.errors.contains(name)) }
        #expect(!program.errors.contains("pw@"))
        let arguments = try Program([Program.binaries + "/worker", "--help"], in: directory)
        #expect(try await arguments.exited() == 64)
    }
}
