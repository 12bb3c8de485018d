import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

@Suite("Orders and clocks", .serialized, .timeLimit(.minutes(3)))
struct OrderClockTests {
    @Test("a worker's clock that is set does not move the time after which the exchange refuses an order")
    func clockIsSet() async throws {
        let fake = exchange()
        let now = Mutex(Int64(1_700_000_100_000))
        let request = try await submit(on: fake, nowMs: { now.withLock { $0 } }) { now.withLock { $0 += 40_000 } }
        let deadline = try #require(request.body.firstMatch(of: /deadline=([^&]+)/)?.1.removingPercentEncoding)
        let date = try Date.ISO8601FormatStyle().parse(deadline)
        // Ten seconds from the exchange's own time, whatever this machine says.
        #expect((1_700_000_010...1_700_000_040).contains(date.timeIntervalSince1970), "\(deadline)")
    }

    @Test("an order whose deadline passes while its journal is opened is not sent")
    @LaneActor
    func deadlineInBetween() async throws {
        let fake = exchange()
        let now = Mutex(Int64(1_700_000_100_000))
        let job = Job(
            exchange: .kraken, kind: .submitOrder, entryId: "1-1",
            fields: ["id", "o", "deadline_ms", "1700000100500"].map { .bytes(Array($0.utf8)) })
        let nowMs = { @Sendable in now.withLock { $0 } }
        let http = HTTPClient(now: nowMs)
        defer { http.close() }
        let session = try session(with: kraken(fake.url), http, nowMs: nowMs)
        await #expect(throws: JobExpired.self) {
            try await session.perform(.submit(order, reference()), for: job) { _ in now.withLock { $0 += 1000 } }
        }
        #expect(!fake.requests.contains { $0.target.contains("AddOrder") })
    }

    @Test("a market list that was loaded by a clock set back since is loaded again")
    @LaneActor
    func listAhead() async throws {
        let requests = Atomic(0)
        let fake = FakeHTTPServer { _ in
            if requests.add(1, ordering: .relaxed).newValue > 2 { return .text("", status: 503) }
            let market = #""lot_decimals":8,"tick_size":"0.1","status":"online""#
            let rows = #""X":{"wsname":"XBT/USD",\#(market)},"E":{"wsname":"ETH/USD",\#(market)}"#
            return .text(#"{"error":[],"result":{\#(rows)}}"#)
        }
        let now = Mutex(Int64(1_700_000_100_000))
        let nowMs = { @Sendable in now.withLock { $0 } }
        let http = HTTPClient(now: nowMs)
        defer { http.close() }
        let session = try session(with: kraken(fake.url), http, nowMs: nowMs)
        _ = try await session.markets.find("BTC/USD")
        now.withLock { $0 -= 86_400_000 }
        // As a market that was not there yet.
        session.markets.forget("ETH/USD")
        #expect(try await session.markets.find("ETH/USD").id == "E")
        #expect(fake.requests.count == 2)
        now.withLock { $0 += 86_400_000 }
        #expect(try await session.markets.find("ETH/USD").id == "E", "an old one is better than none")
        #expect(fake.requests.count == 3)
    }

    private let order = OrderRequest(
        symbol: "BTC/USD", side: .buy, type: .market, amount: "1", price: nil, timeInForce: .gtc)

    /// A Kraken that takes every order.
    private func exchange() -> FakeHTTPServer {
        FakeHTTPServer { request in
            request.target.contains("Time")
                ? .text(#"{"error":[],"result":{"unixtime":1700000000}}"#)
                : .text(#"{"error":[],"result":{"txid":["O-1"]}}"#)
        }
    }

    /// Learns the exchange's clock by one order, lets `meanwhile` happen, and sends another. - Returns: its request.
    @LaneActor
    private func submit(
        on fake: FakeHTTPServer, nowMs: @escaping @Sendable () -> Int64, meanwhile: () -> Void
    ) async throws -> FakeHTTPServer.Request {
        let http = HTTPClient(now: nowMs)
        defer { http.close() }
        let session = try session(with: kraken(fake.url), http, nowMs: nowMs)
        for _ in 0..<2 {
            _ = try await session.perform(.submit(order, reference()), for: nil)
            meanwhile()
        }
        return try #require(fake.requests.last)
    }

    @Test("an order is not sent again before its window has passed by the exchange's clock, whatever Redis' clock says")
    func redisClockIsSet() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"drop_before_rate":1}"#)
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        try await eventually("its send is uncertain") {
            try await stack.journal(.binance, "o")["uncertain_ms"] != nil
        }
        // As after a step of that clock.
        try await stack.journal(.binance, "o", ["send_until_ms": "1"])
        try await stack.endFaults()
        let result = try await stack.result(.binance, "o", within: .seconds(60))
        #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
        let order = try #require(try await stack.orders(.binance, jobId: "o").first)
        let begun = try #require(try await stack.journal(.binance, "o")["begun_ms"].flatMap { Int($0) })
        // Less what the two clocks differ by when they are read.
        #expect((order["accepted_ms"].int ?? 0) - begun >= 17_500)
        withExtendedLifetime(worker) {}
    }

    @Test("an uncertain order past its deadline is asked about at the usual pace")
    func pastDeadline() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.run(.binance, .submitOrder, Stack.resting("before"))
        try await stack.control(#"{"drop_before_rate":1}"#)
        let order = Stack.market("o").merging(["deadline_ms": "\(wallClockMs() + 1500)"]) { $1 }
        try await stack.push(.binance, .submitOrder, order)
        try await eventually("its send is uncertain") {
            try await stack.journal(.binance, "o")["uncertain_ms"] != nil
        }
        try await stack.endFaults()
        #expect(try await stack.result(.binance, "o", within: .seconds(60))["status"].text == "expired")
        #expect(try await stack.orders(.binance, jobId: "o").isEmpty)
        #expect(try await stack.requests(.binance, "GET /api/v3/order") < 40)
        withExtendedLifetime(worker) {}
    }

    @Test("uncertain orders of a Kraken account with little budget do not keep each other from being asked about")
    func littleBudget() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_LIMITS": "on"])
        let market = Stack.market("before").merging(["symbol": "BTC/USD"]) { $1 }
        _ = try await stack.run(.kraken, .submitOrder, market)
        try await stack.control(#"{"drop_before_rate":1}"#)
        for id in ["a", "b", "c"] { try await stack.push(.kraken, .submitOrder, market.merging(["id": id]) { $1 }) }
        for id in ["a", "b", "c"] {
            try await eventually("its send is uncertain") {
                try await stack.journal(.kraken, id)["uncertain_ms"] != nil
            }
        }
        try await stack.endFaults()
        for id in ["a", "b", "c"] {
            let result = try await stack.result(.kraken, id, within: .seconds(100))
            #expect(result["status"].text == "ok" && result["data"]["status"].text == "filled", "\(result)")
            #expect(try await stack.orders(.kraken, jobId: id).count == 1)
        }
        withExtendedLifetime(worker) {}
    }

    @Test(
        "an order whose send is long ago and that was not asked about since is proven absent and sent, as often as it may",
        arguments: [1, 2])
    func longAgo(_ maxAttempts: Int) async throws {
        let stack = try await Stack()
        let past = "\(wallClockMs() - 301_000)"
        try await stack.journal(
            .binance, "o",
            [
                "state": "sending", "owner": "ghost 0-1", "begun_ms": past, "sent_ms": past, "uncertain_ms": past,
                "send_until_ms": past, "sends": "1", "absent": "0",
            ])
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let order = Stack.market("o").merging(["max_attempts": "\(maxAttempts)"]) { $1 }
        let result = try await stack.run(.binance, .submitOrder, order)
        let isSent = maxAttempts > 1
        #expect(result["data"]["status"].text == (isSent ? "filled" : nil), "\(result)")
        #expect(result["error"]["code"].text == (isSent ? nil : "not_placed"), "\(result)")
        #expect(try await stack.orders(.binance, jobId: "o").count == (isSent ? 1 : 0))
        withExtendedLifetime(worker) {}
    }
}
