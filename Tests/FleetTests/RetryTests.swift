import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Retries, delays and dead letters", .serialized, .timeLimit(.minutes(3)))
struct RetryTests {
    private static let fresh = ["symbol": "BTC/USDT", "max_age_ms": "0", "note": "kept"]

    @Test("a job that fails every attempt is kept with its fields and a line for each, and runs again when replayed")
    func deadAndReplayed() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases { _ = try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT"]) }
        try await stack.control(#"{"error_rate":1}"#)
        for exchange in Exchange.allCases {
            let fields = Self.fresh.merging(["id": "f", "max_attempts": "3"]) { $1 }
            let result = try await stack.run(exchange, .fetchTicker, fields)
            #expect(result["status"].text == "failed" && result["attempt"].int == 3, "\(result)")
            let dead = try #require(try await stack.dead(exchange).first)
            #expect(fields.allSatisfy { dead[$0.key] == $0.value }, "\(dead)")
            #expect(dead["fleet_kind"] == "fetch_ticker" && dead["fleet_reason"] == "attempts")
            #expect(dead["fleet_worker"] == result["worker"].text)
            let lines = dead["fleet_history"]?.split(separator: "\n") ?? []
            #expect(lines.count == 3, "\(dead)")
            for (index, line) in lines.enumerated() {
                #expect(try line.contains(Regex(" attempt \(index + 1): [a-z_]+: [^{]")), "\(line)")
            }
        }
        try await stack.endFaults()
        for exchange in Exchange.allCases {
            try await replay(stack, exchange, .fetchTicker, "f")
            let result = try await stack.result(exchange, "f")
            #expect(result["status"].text == "ok" && result["attempt"].int == 1, "\(result)")
            #expect(try await stack.dead(exchange).isEmpty)
        }
        withExtendedLifetime(worker) {}
    }

    /// Replays the dead job of that id; a second time there is none.
    private func replay(_ stack: Stack, _ exchange: Exchange, _ kind: Kind, _ id: String) async throws {
        let entry = try #require(try await stack.dead(exchange).first { $0["id"] == id }?["entry"])
        let keys = Keys(exchange)
        let command = FunctionLibrary.command(
            "fleet_replay",
            [keys.dead, keys.jobs(kind), keys.marker(id), keys.result(id)]
                + (kind == .submitOrder ? [keys.order(id)] : []), [.text(entry)])
        #expect(try await stack.command(command).text?.isEmpty == false)
        #expect(try await stack.command(command).text == "")
    }

    @Test("an order that failed unsent answers the same id with its failure, and when replayed is sent once")
    func orderReplayed() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases {
            _ = try await stack.run(exchange, .submitOrder, Stack.resting("before"))
            // Orders do not wait for the retries of tickers, of which there are many.
            try await stack.command(["SET", .text(Keys(exchange).retries), .text("\(wallClockMs() + 3_600_000)")])
        }
        try await stack.control(#"{"rate_limit_rate":1}"#)
        let fields = Stack.market("o").merging(["max_attempts": "2"]) { $1 }
        for exchange in Exchange.allCases {
            let failed = try await stack.run(exchange, .submitOrder, fields)
            #expect(failed["status"].text == "failed" && failed["attempt"].int == 2, "\(failed)")
        }
        try await stack.endFaults()
        for exchange in Exchange.allCases {
            let sent = try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "")
            try await stack.command(["DEL", Stack.key(exchange, "result:o")])
            #expect(try await stack.run(exchange, .submitOrder, fields)["status"].text == "failed")
            #expect(try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "") == sent)
            try await replay(stack, exchange, .submitOrder, "o")
            let result = try await stack.result(exchange, "o")
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
            #expect(try await stack.orders(exchange, jobId: "o").count == 1)
            #expect(try await stack.requests(exchange, Stack.orderEndpoint[exchange] ?? "") == sent + 1)
        }
        withExtendedLifetime(worker) {}
    }

    @Test("what is set aside comes back within two seconds of its wait, sooner after a short one")
    func spread() {
        for _ in 0..<1000 {
            #expect(Duration.seconds(27)...(.seconds(29)) ~= SetAside(.seconds(27)).wait)
            #expect(Duration.seconds(1)...(.seconds(1.5)) ~= SetAside(.seconds(1)).wait)
        }
    }

    @Test("Retry-After is respected", arguments: Exchange.allCases)
    func retryAfter(_ exchange: Exchange) async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": exchange.rawValue])
        _ = try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT"])
        try await stack.control(#"{"rate_limit_rate":1,"retry_after_s":2}"#)
        try await stack.push(exchange, .fetchTicker, Self.fresh.merging(["id": "r"]) { $1 })
        let delayed = try await eventually("the job is put off") {
            try await stack.command(["ZRANGE", Stack.key(exchange, "delayed"), 0, 0, "WITHSCORES"]).array
                .flatMap { $0.isEmpty ? nil : $0 }
        }
        try await stack.endFaults()
        let fields = try JSONValue(try #require(delayed[0].text))[3].list.compactMap(\.text)
        let history = try #require(fields.firstIndex(of: "fleet_history").map { fields[$0 + 1] })
        let refusedMs = try #require(Int(history.prefix { $0 != " " }))
        let dueMs = try #require(delayed[1].text.flatMap { Int($0) })
        #expect((2000...4000).contains(dueMs - refusedMs), "\(dueMs - refusedMs) ms")
        let result = try await stack.result(exchange, "r")
        #expect(result["status"].text == "ok" && result["attempt"].int == 2, "\(result)")
        #expect((result["started_ms"].int ?? 0) >= dueMs)
        withExtendedLifetime(worker) {}
    }

    @Test("while the breaker is open jobs wait without attempts, and the exchange is hardly asked")
    func parked() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        let asked = try await stack.requests(.binance, "ticker/24hr")
        try await stack.control(#"{"error_rate":1}"#)
        for index in 0..<30 {
            try await stack.push(
                .binance, .fetchTicker, Self.fresh.merging(["id": "p-\(index)", "max_attempts": "9"]) { $1 })
        }
        // All are read before the first fails; one probe goes out when each of two cooldowns ends.
        let before = try await eventually("every job has failed once") {
            let count = try await stack.requests(.binance, "ticker/24hr")
            return count >= asked + 5 ? count : nil
        }
        try await eventually("two probes have failed") {
            try await stack.requests(.binance, "ticker/24hr") >= before + 2
        }
        try await stack.endFaults()
        for index in 0..<30 {
            let result = try await stack.result(.binance, "p-\(index)")
            #expect(result["status"].text == "ok" && (result["attempt"].int ?? 9) <= 5, "\(result)")
        }
        #expect(try await stack.requests(.binance, "ticker/24hr") <= asked + 30 + 5 + 30)
        withExtendedLifetime(worker) {}
    }

    @Test("a deadline that passes while a job waits ends it as expired, long before its retry would come")
    func expired() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        for exchange in Exchange.allCases { _ = try await stack.run(exchange, .submitOrder, Stack.resting("before")) }
        try await stack.control(#"{"rate_limit_rate":1,"retry_after_s":600}"#)
        let deadlineMs = Int(wallClockMs()) + 4000
        let jobs: [(Kind, [String: String])] = [
            (.fetchTicker, Self.fresh), (.cancelOrder, ["symbol": "BTC/USDT", "order_id": "x"]),
            (.submitOrder, Stack.market("x")),
        ]
        for exchange in Exchange.allCases {
            for (kind, fields) in jobs {
                let more = ["id": kind.rawValue, "deadline_ms": "\(deadlineMs)"]
                try await stack.push(exchange, kind, fields.merging(more) { $1 })
            }
        }
        for exchange in Exchange.allCases {
            for (kind, _) in jobs {
                let result = try await stack.result(exchange, kind.rawValue)
                #expect(result["status"].text == "expired", "\(result)")
                let late = (result["finished_ms"].int ?? 0) - deadlineMs
                #expect((0..<5000).contains(late), "\(exchange) \(kind): \(late) ms after its deadline")
            }
            #expect(try await stack.orders(exchange).count == 1)
        }
        withExtendedLifetime(worker) {}
    }

    @Test("delayed jobs come at their time, by whichever of two workers, each once")
    func promoted() async throws {
        let stack = try await Stack()
        let workers = [
            try await stack.worker(["FLEET_EXCHANGES": "binance"]),
            try await stack.worker(["FLEET_EXCHANGES": "binance"]),
        ]
        let firstMs = wallClockMs() + 3000
        let commands = (0..<100).map { index in
            Stack.enqueueing(
                .binance, .fetchTicker, ["id": "d-\(index)", "symbol": "BTC/USDT"], due: firstMs + Int64(index) * 20)
        }
        #expect(await stack.pipeline(commands).allSatisfy { $0.array?.first?.text == "delayed" })
        #expect(
            try await stack.enqueue(.binance, .fetchTicker, ["id": "d-99", "symbol": "BTC/USDT"])
                == ["duplicate", "delayed"])
        var late: [Int] = []
        for index in 0..<100 {
            let result = try await stack.result(.binance, "d-\(index)")
            #expect(result["status"].text == "ok" && result["attempt"].int == 1, "\(result)")
            late.append((result["enqueued_ms"].int ?? 0) - Int(firstMs) - index * 20)
        }
        late.sort()
        print(
            "delayed jobs came p50 \(late[49]) ms, p99 \(late[98]) ms, at most \(late[99]) ms after their time "
                + "(the promise: 100 ms)")
        // The promise is of a quiet machine: a loaded one keeps it for half, and may take as long again for the others.
        #expect(late[0] >= 0 && late[49] < 100 && late[99] < 200, "\(late)")
        #expect(try await stack.added(.binance, .fetchTicker) == 100, "each once")
        #expect(try await stack.command(["ZCARD", Stack.key(.binance, "delayed")]) == .integer(0))
        withExtendedLifetime(workers) {}
    }

    @Test("a recurring refresh keeps running when a worker is killed, until it is taken back")
    func recurring() async throws {
        let stack = try await Stack()
        let first = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        let reply = try await stack.enqueue(
            .kraken, .refreshCache, ["id": "every", "symbols": "BTC/USD,ETH/USD"], every: 200)
        #expect(reply == ["delayed", "every"])
        try await eventually("it has run") { try await stack.added(.kraken, .refreshCache) >= 5 }
        first.program.stop()
        let second = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        let before = try await stack.added(.kraken, .refreshCache)
        try await eventually("it goes on") { try await stack.added(.kraken, .refreshCache) >= before + 5 }
        let keys = Keys(.kraken)
        let taken = FunctionLibrary.command("fleet_unschedule", [keys.delayed, keys.marker("every")], ["every"])
        #expect(try await stack.command(taken) == .integer(1))
        let info = try await stack.command(["XINFO", "STREAM", .text(keys.jobs(.refreshCache))])
        let last = try #require(Stack.pairs(info.array ?? [])["last-generated-id"])
        #expect(try await stack.result(.kraken, last)["data"]["refreshed"].int == 2)
        #expect(try await stack.command(["EXISTS", .text(keys.delayed), .text(keys.marker("every"))]) == .integer(0))
        withExtendedLifetime(second) {}
    }
}
