import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

@Suite("A session with an exchange", .timeLimit(.minutes(1)))
@LaneActor
struct SessionTests {
    private let order = OrderRequest(
        symbol: "BTC/USD", side: .buy, type: .market, amount: "1", price: nil, timeInForce: .gtc)

    /// A Kraken that says the same to every private call.
    private func kraken(saying words: String, status: Int = 200) -> FakeHTTPServer {
        FakeHTTPServer { request in
            request.target.contains("Time")
                ? .text(#"{"error":[],"result":{"unixtime":1700000000}}"#)
                : .text(#"{"error":["\#(words)"]}"#, status: status)
        }
    }

    /// What an order ends with that is sent twice, and what was called.
    private func refusals(_ words: String) async throws -> (errors: [any Error], calls: [String]) {
        let fake = kraken(saying: words)
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        let session = try session(with: FleetTests.kraken(fake.url), http)
        var errors: [any Error] = []
        for _ in 0..<2 {
            do { _ = try await session.perform(.submit(order, reference()), for: nil) } catch { errors.append(error) }
        }
        return (errors, fake.requests.map { $0.target.split(separator: "/").last.map(String.init) ?? "" })
    }

    @Test("what Kraken refuses an order with is heeded by the next")
    func heeded() async throws {
        let late = try await refusals("EService:Deadline elapsed")
        #expect(late.calls == ["Time", "AddOrder", "Time", "AddOrder"], "its clock is asked again")
        let spent = try await refusals("EOrder:Rate limit exceeded")
        #expect(spent.errors.count == 2 && spent.errors.allSatisfy { $0 is SetAside }, "no attempt: \(spent)")
        let refused = try await refusals("EAPI:Invalid key: sim-kraken-key")
        #expect(refused.calls == ["Time", "AddOrder"] && refused.errors.count == 2)
        #expect(!"\(refused.errors)".contains("sim-kraken-key"))
    }

    @Test("a clock that the exchange refuses is set right, and the call is sent again")
    func clockJumps() async throws {
        let times = Atomic(Int64(0))
        let fake = FakeHTTPServer { request in
            if request.target.hasSuffix("/time") {
                // By an hour each time it is asked.
                let hours = times.add(1, ordering: .relaxed).oldValue
                return .text(#"{"serverTime":\#(1_700_000_000_000 + hours * 3_600_000)}"#)
            }
            let isRight = request.target.contains("timestamp=170000360")
            return .text(#"{"code":\#(isRight ? -2013 : -1021),"msg":""}"#, status: 400)
        }
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        let settings = ["BINANCE_URL": fake.url, "FLEET_EXCHANGES": "binance"]
        let session = try session(with: try #require(try Configuration(settings).apis.first), http)
        guard case .absent = try await session.perform(query(), for: nil) else {
            Issue.record("absent was expected")
            return
        }
        #expect(fake.requests.count == 4)
    }

    @Test("an order that finds out in vain whether the exchange is back may exist as any other")
    func probe() async throws {
        let fake = kraken(saying: "", status: 503)
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        let session = try session(with: FleetTests.kraken(fake.url), http)
        for _ in 0..<5 {
            await #expect(throws: ExchangeError.self) { try await session.perform(.query(reference()), for: nil) }
        }
        #expect(session.isStopped(trading: true))
        try await eventually("it is sent", within: .seconds(10)) {
            do { _ = try await session.perform(.submit(order, reference()), for: nil) } catch is SetAside {
                return false
            } catch let error as ExchangeError {
                return error.mayHaveExecuted
            }
            return false
        }
        #expect(fake.requests.count { $0.target.contains("AddOrder") } == 1)
    }

    @Test("who stands in line when the exchange wants nobody to call does not call")
    func inLine() async throws {
        let server = try await FunctionServer(streams: false)
        let limiter = Limiter(
            redis: server.client, keys: Keys(.kraken), egress: "e", account: "a", nowMs: wallClockMs)
        let fake = kraken(saying: "EAPI:Rate limit exceeded")
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        let session = try session(with: FleetTests.kraken(fake.url), http, limiter: limiter)
        try await withThrowingDiscardingTaskGroup { calls in
            calls.addImmediateTask { @LaneActor in
                await #expect(throws: ExchangeError.self) {
                    try await session.perform(.query(reference()), for: nil) { _ in
                        // Two points each, of which one comes back in three seconds.
                        try await eventually("the others have paid, and wait for this one") {
                            let full = try await server.redis("GET", Keys(.kraken).limit("private", "a")).text
                            let until = full?.split(separator: " ").first.flatMap { Double($0) }
                            return until ?? 0 > Double(wallClockMs()) + 15_000
                        }
                    }
                }
            }
            for _ in 0..<2 {
                calls.addImmediateTask { @LaneActor in
                    await #expect(throws: SetAside.self) {
                        try await session.perform(.query(reference()), for: nil)
                    }
                }
            }
        }
        #expect(fake.requests.count { $0.target.contains("private") } == 1)
    }

    @Test("what was taken for those behind in the line is not used once the exchange wants nobody to call")
    func takenBeforeGate() async throws {
        let server = try await FunctionServer(streams: false)
        let limiter = Limiter(
            redis: server.client, keys: Keys(.kraken), egress: "e", account: "a", nowMs: wallClockMs)
        let charges = try FleetTests.kraken("http://127.0.0.1").charges(for: .time)
        var ends: [String] = []
        await withDiscardingTaskGroup { calls in
            for number in 0..<3 {
                calls.addImmediateTask { @LaneActor in
                    do {
                        try await limiter.take(charges, .ticker, ofAccount: false, deadlineMs: nil)
                        ends.append("\(number)")
                        // It has taken for the third too, which comes next.
                        if number == 1 { await limiter.close(for: .seconds(60), ofAccount: false) }
                    } catch { ends.append("\(type(of: error))") }
                }
            }
        }
        #expect(ends == ["0", "1", "SetAside"])
    }
}
