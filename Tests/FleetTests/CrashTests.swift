import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Crashes", .timeLimit(.minutes(4 + 2 * Torture.minutes)))
struct CrashTests {
    @Test("workers killed with -9 every second: every job ends, none is lost, no order is executed twice")
    func killed() async throws {
        let crowd = try await Crowd(try await Stack(), orders: 12)
        let seconds = Torture.load(10)
        try await crowd.storm(jobs: max(3000, seconds * 100), over: seconds, andFor: 4) { _ in
            try await crowd.killOne()
        }
        let left = try await crowd.calm(within: .seconds(90 + 60 * Torture.minutes))
        #expect(left == "", "\(left)")
        let books = try await crowd.books()
        print(books.table("kill -9 every second"))
        #expect(books.lost.isEmpty, "\(books.lost)")
        #expect(books.twice.isEmpty, "\(books.twice)")
        #expect(books.wrong.isEmpty, "\(books.wrong)")
        #expect(books.count("unknown") == 0 && books.count("failed") == 0, "no exchange had a fault")
        // The promise is 15 s; here four workers are started anew all the time on what the machine has.
        let times = books.market + books.trading
        #expect(!books.market.isEmpty && times.allSatisfy { $0 < 20_000 }, "\(times)")
    }

    @Test("the same at faulty exchanges: at most one execution, every end is true, and unknown only what is nowhere")
    func killedAtFaultyExchanges() async throws {
        let stack = try await Stack()
        let crowd = try await Crowd(stack, orders: 60)
        let seconds = Torture.load(6)
        let faults =
            #""drop_after_rate":0.3,"late_accept_rate":0.1,"query_lag_ms":1000,"error_rate":0.1,"#
            + #""rate_limit_rate":0.1,"retry_after_s":1"#
        let control = { (second: Int) in
            let (late, latency) = (4000 - second % 3 * 1000, second % 8 < 4 ? 0 : 400)
            try await stack.control(#"{\#(faults),"late_accept_ms":\#(late),"latency_ms":\#(latency)}"#)
        }
        try await control(0)
        try await crowd.storm(jobs: max(200, seconds * 8), over: seconds, andFor: 4) { second in
            try await control(second)
            try await crowd.killOne()
        }
        try await stack.endFaults()
        let left = try await crowd.calm(within: .seconds(120 + 60 * Torture.minutes))
        #expect(left == "", "\(left)")
        let books = try await crowd.books()
        print(books.table("kill -9 every second, faulty exchanges"))
        #expect(books.lost.isEmpty, "\(books.lost)")
        #expect(books.twice.isEmpty, "\(books.twice)")
        #expect(books.wrong.isEmpty, "\(books.wrong)")
    }

    @Test(
        "Redis killed with -9 under load: what it wrote at once is neither lost nor repeated",
        arguments: ["always", "everysec"])
    func redisKilled(_ fsync: String) async throws {
        let stack = try await Stack(redisOptions: ["--appendfsync", fsync])
        // So that there are orders under way at any moment.
        try await stack.control(#"{"latency_ms":30}"#)
        let crowd = try await Crowd(stack, workers: 2, orders: 30)
        let seconds = Torture.load(6)
        var killsMs: [Int64] = []
        async let load: Void = crowd.storm(jobs: seconds * 100, over: seconds) { _ in }
        for kill in 1...max(1, seconds / 20) {
            let share = seconds * 100 * kill / (max(1, seconds / 20) + 1)
            try await eventually("\(share) jobs are pushed", within: .seconds(seconds + 60)) {
                await crowd.pushed.count >= share * 9 / 10
            }
            killsMs.append(wallClockMs())
            try await stack.restartRedis()
        }
        try await load
        let left = try await crowd.calm(within: .seconds(60 + 60 * Torture.minutes))
        let books = try await crowd.books()
        print(books.table("redis-server killed \(killsMs.count) times, appendfsync \(fsync)"))
        if fsync == "always" {
            #expect(left == "")
            #expect(books.lost.isEmpty, "\(books.lost)")
            #expect(books.twice.isEmpty, "\(books.twice)")
            #expect(books.wrong.isEmpty, "\(books.wrong)")
        } else {
            // What may be gone is the last second before a kill, or two while the disk is slow.
            let isRecent = { (time: Int64) in killsMs.contains { ($0 - 3000...$0 + 3000).contains(time) } }
            #expect(books.lost.allSatisfy { isRecent($0.atMs) }, "\(books.lost)")
            #expect(books.twice.allSatisfy { isRecent(Int64($0.firstMs)) }, "\(books.twice)")
        }
    }

    @Test("a worker stopped for longer than its lease: another takes over, and its late end changes nothing")
    func stopped() async throws {
        let stack = try await Stack()
        let first = try await stack.worker()
        for exchange in Exchange.allCases {
            _ = try await stack.run(exchange, .submitOrder, Stack.resting("warm"))
            _ = try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT"])
        }
        // Long enough to be stopped in the middle of the requests.
        try await stack.control(#"{"latency_ms":2000}"#)
        for exchange in Exchange.allCases {
            try await stack.push(exchange, .submitOrder, Stack.market("stopped"))
            try await stack.push(
                exchange, .fetchTicker, ["id": "stopped-ticker", "symbol": "BTC/USDT", "max_age_ms": "0"])
        }
        try await eventually("requests are under way everywhere") {
            for exchange in Exchange.allCases {
                let state = try await stack.command(["HGET", .text(Keys(exchange).order("stopped")), "state"]).text
                guard try await stack.backlog(exchange).pending == 2, state == "sending" else { return false }
            }
            return true
        }
        first.program.signal(SIGSTOP)
        try await stack.endFaults()
        let second = try await stack.worker()
        let consumer = try #require(first.program.errors.firstMatch(of: /"consumer":"([^"]+)"/)).1
        var results: [String: JSONValue] = [:]
        for exchange in Exchange.allCases {
            for id in ["stopped", "stopped-ticker"] {
                let result = try await stack.result(exchange, id, within: .seconds(60))
                #expect(result["status"].text == "ok" && result["worker"].text != String(consumer), "\(result)")
                results["\(exchange) \(id)"] = result
            }
        }
        first.program.signal(SIGCONT)
        for exchange in Exchange.allCases {
            let fenced = #"fleet_job_moves_total{exchange="\#(exchange.rawValue)",move="fenced"} 2"#
            try await eventually("both late ends of \(exchange) were fenced") {
                let answer = try await Stack.get(first.metricsPort, "/metrics")
                return String(decoding: answer?.body ?? [], as: UTF8.self).contains(fenced)
            }
            for id in ["stopped", "stopped-ticker"] {
                #expect(try await stack.result(exchange, id) == results["\(exchange) \(id)"])
            }
            #expect(try await stack.orders(exchange, jobId: "stopped").count == 1)
        }
        withExtendedLifetime(second) {}
    }
}
