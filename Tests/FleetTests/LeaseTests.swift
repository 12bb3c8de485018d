import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Leases", .timeLimit(.minutes(3)))
struct LeaseTests {
    @Test("the jobs of a killed worker run again on another, each order once, and the consumers are the live workers")
    func killed() async throws {
        let stack = try await Stack()
        // An order of a bounded worth is looked up in a ticker before it is sent, unless it says its price.
        let first = try await stack.worker(["FLEET_MAX_ORDER_NOTIONAL": "USDT=100000"])
        for exchange in Exchange.allCases { _ = try await stack.run(exchange, .submitOrder, Stack.resting("before")) }
        try await stack.control(#"{"latency_ms":8000}"#)
        for exchange in Exchange.allCases {
            try await stack.push(exchange, .submitOrder, Stack.resting("sending"))
            try await stack.push(exchange, .submitOrder, Stack.market("unsent"))
            try await stack.push(exchange, .fetchTicker, ["id": "t", "symbol": "BTC/USDT", "max_age_ms": "0"])
            try await stack.push(exchange, .cancelOrder, ["id": "c", "symbol": "BTC/USDT", "order_id": "before"])
        }
        for exchange in Exchange.allCases {
            try await eventually("the first has all jobs, and sends one order") {
                let state = try await stack.journal(exchange, "sending")["state"]
                return try await stack.backlog(exchange).pending == 4 && state == "sending"
            }
        }
        let second = try await stack.worker()
        let killedMs = Int(wallClockMs())
        first.program.stop()
        for exchange in Exchange.allCases { #expect(try await stack.journal(exchange, "unsent").isEmpty) }
        try await stack.endFaults()
        var late: [Int] = []
        for exchange in Exchange.allCases {
            for id in ["t", "c", "unsent", "sending"] {
                // An order whose request died with its worker is sent again only when it can no longer be accepted.
                let result = try await stack.result(exchange, id, within: .seconds(id == "sending" ? 60 : 30))
                #expect(result["status"].text == "ok", "\(result)")
                if id != "sending" { late.append((result["finished_ms"].int ?? .max) - killedMs) }
            }
            for id in ["unsent", "sending"] { #expect(try await stack.orders(exchange, jobId: id).count == 1) }
        }
        let latest = try #require(late.max())
        #expect(late.allSatisfy { (0...15_000).contains($0) }, "\(late)")
        print("jobs of a killed worker were done after at most \(latest) ms (the promise: 15000 ms)")
        for exchange in Exchange.allCases {
            for kind in Kind.allCases {
                try await eventually("\(exchange) \(kind) has one consumer", within: .seconds(60)) {
                    try await stack.consumers(exchange, kind) == 1
                }
            }
        }
        withExtendedLifetime(second) {}
    }

    @Test("a consumer that is silent goes when nothing is pending for it, and stays while something is")
    func retired() async throws {
        let (stack, stream) = (try await Stack(), Stack.key(.kraken, "jobs:fetch_ticker"))
        // Nobody claims what is paused.
        try await stack.command(["SADD", Stack.key(.kraken, "paused"), "fetch_ticker"])
        try await stack.command(["XGROUP", "CREATE", stream, "workers", "0", "MKSTREAM"])
        try await stack.push(.kraken, .fetchTicker, ["id": "held", "symbol": "BTC/USD"])
        try await stack.command(["XREADGROUP", "GROUP", "workers", "holder", "STREAMS", stream, ">"])
        try await stack.command(["XGROUP", "CREATECONSUMER", stream, "workers", "idler"])
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        func names() async throws -> Set<String> {
            Set(
                (try await stack.command(["XINFO", "CONSUMERS", stream, "workers"]).array ?? [])
                    .compactMap { $0.array.map(Stack.pairs)?["name"] })
        }
        try await eventually("the idle one is gone", within: .seconds(60)) { try await !names().contains("idler") }
        #expect(try await names().contains("holder"), "its job would be thrown away with it")
        try await stack.command(["SREM", Stack.key(.kraken, "paused"), "fetch_ticker"])
        #expect(try await stack.result(.kraken, "held")["status"].text == "ok")
        try await eventually("the other is gone too") { try await !names().contains("holder") }
        withExtendedLifetime(worker) {}
    }

    @Test("jobs that run longer than a lease stay with their worker while it lives")
    func longRunning() async throws {
        let stack = try await Stack()
        let first = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        _ = try await stack.run(.kraken, .submitOrder, Stack.resting("before"))
        let sent = try await stack.requests(.kraken, "AddOrder")
        // Calls with a nonce go one by one, so that the later orders wait in hand.
        try await stack.control(#"{"latency_ms":3000}"#)
        for index in 0..<6 { try await stack.push(.kraken, .submitOrder, Stack.market("l-\(index)")) }
        try await eventually("the first has all orders") { try await stack.backlog(.kraken).pending == 6 }
        let second = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        try await eventually("a lease and half another have passed") {
            try await stack.requests(.kraken, "AddOrder") >= sent + 5
        }
        let pending = try await stack.command([
            "XPENDING", Stack.key(.kraken, "jobs:submit_order"), "workers", "-", "+", 10,
        ])
        let deliveries = (pending.array ?? []).compactMap { $0.array?.last?.int }
        #expect(deliveries.allSatisfy { $0 == 1 } && !deliveries.isEmpty, "delivered \(deliveries) times")
        try await stack.endFaults()
        for index in 0..<6 {
            let result = try await stack.result(.kraken, "l-\(index)")
            #expect(result["status"].text == "ok", "\(result)")
            #expect(try await stack.orders(.kraken, jobId: "l-\(index)").count == 1)
        }
        for worker in [first, second] {
            #expect(try await Stack.figure(worker, "^fleet_job_moves_total.*(claimed|fenced)") == 0)
        }
    }

    private func deliveries(_ stack: Stack, _ kind: Kind) async throws -> [Int] {
        let pending = try await stack.command(["XPENDING", .text(Keys(.binance).jobs(kind)), "workers", "-", "+", 100])
        return (pending.array ?? []).compactMap { $0.array?.last?.int }
    }

    @Test("connections that break are no deliveries, neither of what is in hand nor of what was lost on its way")
    func broken() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let name = try #require(worker.program.errors.firstMatch(of: /"consumer":"([^"]+)"/)?.1)
        try await stack.control(#"{"latency_ms":9000}"#)
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        let ticker = { ["id": $0, "symbol": "BTC/USDT", "max_age_ms": "0"] }
        try await stack.push(.binance, .fetchTicker, ticker("t"))
        try await eventually("both are in hand") { try await stack.backlog(.binance).pending == 2 }
        for round in 1...4 {
            worker.program.signal(SIGSTOP)
            try await stack.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            let lost = try await stack.push(.binance, .refreshCache, ["id": "r-\(round)", "symbols": "BTC/USDT"])
            let read = try await stack.command([
                "XREADGROUP", "GROUP", "workers", .text(String(name)), "STREAMS",
                .text(Keys(.binance).jobs(.refreshCache)), ">",
            ])
            #expect(read.array?.first?.array?.last?.array?.first?.array?.first?.text == lost)
            worker.program.signal(SIGCONT)
            try await eventually("all are back") {
                worker.program.errors.components(separatedBy: "redis connected").count == 4 + 3 * round
            }
            try await eventually("what was lost is in hand too") {
                try await Stack.figure(worker, "^fleet_jobs_in_hand") == Double(2 + round)
            }
            #expect(try await deliveries(stack, .refreshCache) == Array(repeating: 1, count: round))
            #expect(try await deliveries(stack, .submitOrder) == [1])
            #expect(try await deliveries(stack, .fetchTicker) == [1])
        }
        try await stack.endFaults()
        for id in ["o", "t", "r-1", "r-4"] {
            #expect(try await stack.result(.binance, id)["status"].text == "ok")
        }
        #expect(try await Stack.figure(worker, "^fleet_job_moves_total.*(claimed|fenced)") == 0)
        withExtendedLifetime(worker) {}
    }

    @Test("what is in hand is kept alive while there is nothing to read with")
    func unread() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        try await stack.control(#"{"latency_ms":9000}"#)
        try await stack.push(.binance, .fetchTicker, ["id": "t", "symbol": "BTC/USDT", "max_age_ms": "0"])
        try await eventually("it is in hand") { try await stack.backlog(.binance).pending == 1 }
        // Only what the setting up of groups needs.
        try await stack.command(["ACL", "SETUSER", "default", "-xgroup"])
        try await stack.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        try await eventually("it cannot read") { worker.program.errors.contains("not reading") }
        let key = RedisArgument.text(Keys(.binance).jobs(.fetchTicker))
        func silence() async throws -> Int {
            let pending = try await stack.command(["XPENDING", key, "workers", "-", "+", 1])
            return pending.array?.first?.array?.dropFirst(2).first?.int ?? .max
        }
        try await eventually("a second has passed") { try await silence() > 1000 }
        try await eventually("it was renewed", within: .seconds(8)) { try await silence() < 1000 }
        withExtendedLifetime(worker) {}
    }

    @Test("a worker of one slot waits for jobs without asking for them all the time")
    func oneSlot() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "FLEET_CONCURRENCY": "1"])
        for round in 0..<2 {
            try await eventually("it waits in Redis") {
                try await stack.command(["INFO", "clients"]).text?.contains("blocked_clients:1") == true
            }
            for index in 0..<5 {
                let fields = ["id": "\(round)-\(index)", "symbol": "BTC/USDT", "max_age_ms": "0"]
                try await stack.push(.binance, .fetchTicker, fields)
            }
            for index in 0..<5 {
                #expect(try await stack.result(.binance, "\(round)-\(index)")["status"].text == "ok")
            }
        }
        withExtendedLifetime(worker) {}
    }

    @Test("a job delivered more than three times without an end is given up, as unknown where its order may exist")
    func poison() async throws {
        let stack = try await Stack()
        let ticker = ["symbol": "BTC/USDT", "max_age_ms": "0", "note": "kept"]
        let cases: [(id: String, kind: Kind, fields: [String: String], deliveries: Int, status: String)] = [
            ("third", .fetchTicker, ticker, 2, "ok"), ("fourth", .fetchTicker, ticker, 3, "failed"),
            ("unsent", .submitOrder, Stack.market("unsent"), 3, "failed"),
            ("sending", .submitOrder, Stack.market("sending"), 3, "unknown"),
            ("wanted", .submitOrder, Stack.market("wanted"), 2, "ok"),
        ]
        try await stack.journal(.binance, "sending", ["state": "sending", "owner": "ghost", "begun_ms": "1"])
        for kind in [Kind.fetchTicker, .submitOrder] {
            try await stack.command([
                "XGROUP", "CREATE", Stack.key(.binance, "jobs:" + kind.rawValue), "workers", "0", "MKSTREAM",
            ])
        }
        for (id, kind, fields, deliveries, _) in cases {
            let stream = Stack.key(.binance, "jobs:" + kind.rawValue)
            let entry = try await stack.push(.binance, kind, fields.merging(["id": id]) { $1 })
            try await stack.command(["XREADGROUP", "GROUP", "workers", "ghost", "STREAMS", stream, ">"])
            try await stack.command([
                "XCLAIM", stream, "workers", "ghost", 0, .text(entry), "IDLE", 60_000, "RETRYCOUNT", .int(deliveries),
            ])
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        for (id, _, _, _, status) in cases {
            let result = try await stack.result(.binance, id)
            #expect(result["status"].text == status, "\(result)")
        }
        let dead = try await stack.dead(.binance)
        #expect(Set(dead.compactMap { $0["id"] }) == ["fourth", "unsent", "sending"])
        for job in dead {
            #expect(job["fleet_reason"] == "poison" && job["fleet_worker"]?.isEmpty == false, "\(job)")
            #expect(job["fleet_history"]?.contains("delivered 4 times") == true, "\(job)")
            let fields = cases.first { $0.id == job["id"] }?.fields ?? [:]
            #expect(fields.allSatisfy { job[$0.key] == $0.value }, "its own fields: \(job)")
        }
        #expect(try await stack.orders(.binance).count == 1, "what may kill workers is not executed")
        withExtendedLifetime(worker) {}
    }

    @Test("a stop that is cut off hands back no order that may be sent: the next owner asks, and it exists once")
    func cutOff() async throws {
        let stack = try await Stack()
        let settings = ["FLEET_EXCHANGES": "binance"]
        let first = try await stack.worker(settings.merging(["FLEET_DRAIN_TIMEOUT": "1"]) { $1 })
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"latency_ms":4000}"#)
        try await stack.push(.binance, .submitOrder, Stack.market("cut"))
        try await eventually("its send has begun") { try await stack.journal(.binance, "cut")["state"] == "sending" }
        first.program.signal(SIGTERM)
        _ = try await first.program.exited()
        #expect(try await stack.backlog(.binance).pending == 1, "it stays the stopped worker's")
        #expect(try await stack.command(["ZCARD", Stack.key(.binance, "delayed")]) == .integer(0))
        try await stack.endFaults()
        let second = try await stack.worker(settings)
        let result = try await stack.result(.binance, "cut", within: .seconds(60))
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        #expect(try await stack.orders(.binance, jobId: "cut").count == 1)
        withExtendedLifetime(second) {}
    }
}
