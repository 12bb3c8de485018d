import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

/// Kills a worker at every change of state of a job: before Redis or the exchange is told, and after it was but before
/// the worker knows. A proxy between them counts the changes, so the worker needs no code for it.
@Suite("A worker killed at each change of state", .timeLimit(.minutes(6)))
struct KillPointTests {
    /// A job's way, and how it must end whoever dies on it.
    struct Scenario: Sendable, CustomTestStringConvertible {
        let name: String
        let exchange: Exchange
        let kind: Kind
        let fields: [String: String]
        /// Faults of the simulator.
        var faults: String?
        let status: String
        /// How often the job's order stands in the simulator's book.
        let orders: Int
        var isBuried = false
        var testDescription: String { "\(name) \(exchange)" }
    }

    static let scenarios: [Scenario] =
        Exchange.allCases.map {
            Scenario(
                name: "market order", exchange: $0, kind: .submitOrder, fields: Stack.market(""), status: "ok",
                orders: 1)
        } + [
            Scenario(
                name: "cancel of an order to come", exchange: .binance, kind: .cancelOrder,
                fields: ["symbol": "BTC/USDT", "order_id": "none"], status: "ok", orders: 0),
            Scenario(
                name: "ticker", exchange: .kraken, kind: .fetchTicker,
                fields: ["symbol": "BTC/USD", "max_age_ms": "0"], status: "ok", orders: 0),
            Scenario(
                name: "failing ticker", exchange: .binance, kind: .fetchTicker,
                fields: ["symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "2"],
                faults: #"{"error_rate":1}"#, status: "failed", orders: 0, isBuried: true),
        ]

    /// What one worker said to Redis and the exchange that changes something, and the moment it dies.
    private final class Observer: Sendable {
        private struct State {
            var seen: [String] = []
            /// Changes passed on whose answer has not come yet, by connection.
            var pending: [Int32: String] = [:]
        }
        private let state = Mutex(State())
        private let last: Int
        private let kill: @Sendable () -> Void
        var seen: [String] { state.withLock(\.seen) }

        /// `kill` is called at the change numbered `last`.
        init(last: Int, kill: @escaping @Sendable () -> Void) { (self.last, self.kill) = (last, kill) }

        private static let changes = [
            "fleet_journal_begin", "fleet_journal_note", "fleet_journal_end", "fleet_journal_cancel", "fleet_finish",
            "fleet_retry", "fleet_bury", "EXEC", "POST /binance/api/v3/order", "order/create", "AddOrder",
            "DELETE /binance/api/v3/order",
        ]

        func passes(_ direction: Proxy.Direction, _ connection: Int32, _ bytes: [UInt8]) -> Bool {
            let text = String(decoding: bytes, as: UTF8.self)
            let isDead = state.withLock { state in
                switch direction {
                case .request:
                    guard !text.contains("FUNCTION"), let change = Self.changes.first(where: text.contains) else {
                        break
                    }
                    state.seen.append("before " + change)
                    state.pending[connection] = change
                case .answer:
                    // A job read and not yet known to the worker, or the answer to a change.
                    let isRead = text.contains("-0\r\n") && text.contains("symbol")
                    guard let change = isRead ? "read" : state.pending[connection] else { break }
                    state.seen.append("after " + change)
                    state.pending[connection] = nil
                }
                return state.seen.count > last
            }
            if isDead { kill() }
            return !isDead
        }
    }

    @Test("loses nothing and executes no order twice", arguments: scenarios)
    func everyPoint(_ scenario: Scenario) async throws {
        let stack = try await Stack(redisOptions: ["--databases", "64"])
        if scenario.kind == .cancelOrder {
            // The cancel has something to do at the exchange: its order rests.
            let worker = try await stack.worker(["FLEET_EXCHANGES": scenario.exchange.rawValue])
            _ = try await stack.run(scenario.exchange, .submitOrder, Stack.resting("none"))
            worker.program.stop()
        }
        if let faults = scenario.faults { try await stack.control(faults) }
        // Once without a death, to count.
        let all = try await run(scenario, stack, 0, last: .max)
        try #require(all.count >= 3, "\(all)")
        print("\(scenario.testDescription): killed at \(all.count) changes: \(all.joined(separator: ", "))")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for point in all.indices.prefix(60) {
                // A few at a time: the machine is small.
                if point >= 4 { try await group.next() }
                group.addTask { _ = try await run(scenario, stack, point + 1, last: point) }
            }
            try await group.waitForAll()
        }
    }

    /// One doomed worker in a database of its own, then one that lives. - Returns: the changes seen.
    private func run(_ scenario: Scenario, _ stack: Stack, _ database: Int, last: Int) async throws -> [String] {
        let (exchange, id) = (scenario.exchange, "point-\(database)")
        let doomed = Mutex<Program?>(nil)
        let observer = Observer(last: last) { doomed.withLock { $0?.stop() } }
        let redis = Proxy(to: .unix(stack.redis.withLock(\.socket)), passes: observer.passes)
        let port = try #require(URL(string: stack.simulatorURL)?.port)
        let simulator = Proxy(to: .port(port), passes: observer.passes)
        let only = ["FLEET_EXCHANGES": exchange.rawValue, "FLEET_ORDER_RESULT_TTL": "3600"]
        let direct = stack.redisURL + "?db=\(database)"
        let client = try await RedisConnection.connect(
            to: try RedisURL(direct), on: LaneActor.loop, name: "kill-point")
        defer { client.close() }
        let first = try Program(
            [Program.binaries + "/worker"],
            environment: stack.environment(only).merging([
                "REDIS_URL": "redis://127.0.0.1:\(redis.port)/\(database)",
                "FLEET_SIMULATOR_URL": "http://127.0.0.1:\(simulator.port)",
            ]) { $1 }, in: stack.directory)
        doomed.withLock { $0 = first }
        let fields = scenario.fields.merging(["id": id]) { $1 }.sorted { $0.key < $1.key }
        _ = try await client.send(Stack.append(exchange, scenario.kind, fields.map { ($0.key, Array($0.value.utf8)) }))
        let key = RedisArgument.text(Keys(exchange).result(id))
        func result() async throws -> String? { try await client.send(["GET", key]).text }
        try await eventually("point \(last) of \(scenario.name): a death or an end", within: .seconds(100)) {
            if first.exitStatus != nil { return true }
            return try await result() != nil
        }
        let survivor: Program? =
            first.exitStatus == nil
            ? nil
            : try Program(
                [Program.binaries + "/worker"],
                environment: stack.environment(only).merging(["REDIS_URL": direct]) { $1 }, in: stack.directory)
        let at = "killed at \(last): \(observer.seen.last ?? "")"
        let text = try await eventually("\(scenario.name): an end, \(at)", within: .seconds(120)) { try await result() }
        let found = try JSONValue(text)
        #expect(found["status"].text == scenario.status, "\(at): \(text)")
        let keys = Keys(exchange)
        try await eventually("\(scenario.name): all put away, \(at)") {
            let left = await client.pipeline([
                ["XLEN", .text(keys.jobs(scenario.kind))],
                ["XPENDING", .text(keys.jobs(scenario.kind)), .text(Keys.group)], ["ZCARD", .text(keys.delayed)],
                ["EXISTS", .text(keys.marker(id))],
            ])
            return left[0].int == 0 && left[1].array?.first?.int == 0 && left[2].int == 0 && left[3].int == 0
        }
        #expect(try await client.send(["XLEN", .text(keys.dead)]).int == (scenario.isBuried ? 1 : 0), "\(at)")
        if scenario.kind == .submitOrder {
            #expect(try await stack.orders(exchange, jobId: id).count == scenario.orders, "\(at)")
        }
        withExtendedLifetime((survivor, redis, simulator)) {}
        return observer.seen
    }
}
