import Exchanges
import Foundation
import Redis
import Synchronization
import TestSupport
import Testing

@testable import Fleet

/// Kills a worker at every change of state of a job: before Redis or the exchange is told, and after it was but before
/// the worker knows. A proxy between them counts the changes, so the worker needs no code for it. Of changes that come
/// again and again (an uncertain order is asked about for its exchange's window) the first two are taken.
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
        /// What is lost with its connection when it first happens, the worker living on.
        var loses: String?
        /// How often the job was delivered to a worker that is dead by now.
        var deliveries = 0
        /// Whether that one may have sent it.
        var wasBegun = false
        /// Whether a cancel comes when it is uncertain, or its worker dead.
        var isCanceled = false
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
            Scenario(
                name: "order that did not arrive", exchange: .binance, kind: .submitOrder, fields: Stack.market(""),
                loses: "before POST /binance/api/v3/order", status: "ok", orders: 1),
            Scenario(
                name: "order canceled while uncertain", exchange: .binance, kind: .submitOrder,
                fields: Stack.market(""), loses: "before POST /binance/api/v3/order", isCanceled: true, status: "ok",
                orders: 0),
            Scenario(
                name: "order lost on its way to the worker", exchange: .bybit, kind: .submitOrder,
                fields: Stack.market(""), loses: "after read", status: "ok", orders: 1),
            Scenario(
                name: "order of a dead worker", exchange: .kraken, kind: .submitOrder, fields: Stack.market(""),
                deliveries: 1, status: "ok", orders: 1),
            Scenario(
                name: "order that killed three", exchange: .bybit, kind: .submitOrder, fields: Stack.market(""),
                deliveries: 3, wasBegun: true, status: "unknown", orders: 0, isBuried: true),
        ]

    /// A change, and which time it happens.
    private struct Point: Sendable {
        let change: String
        var time = 1
    }

    /// What one worker said to Redis and the exchange that changes something, and the moment it dies.
    private final class Observer: Sendable {
        private struct State {
            var seen: [String] = []
            /// Changes passed on whose answer has not come yet, by connection.
            var pending: [Int32: String] = [:]
        }
        private let state = Mutex(State())
        private let last: Point?
        private let lost: String?
        private let kill: @Sendable () -> Void
        var seen: [String] { state.withLock(\.seen) }

        /// `kill` is called at the change `last`; at the first that is `lost` its connection breaks.
        init(last: Point?, lost: String?, kill: @escaping @Sendable () -> Void) {
            (self.last, self.lost, self.kill) = (last, lost, kill)
        }

        private static let changes = [
            "fleet_journal_begin", "fleet_journal_note", "fleet_journal_end", "fleet_journal_cancel", "fleet_finish",
            "fleet_retry", "fleet_bury", "XCLAIM", "EXEC", "POST /binance/api/v3/order", "order/create", "AddOrder",
            "DELETE /binance/api/v3/order",
            // Last: they are asked all the time, also in one packet with another change.
            "fleet_claim", "fleet_promote",
        ]
        private static let notes = ["released", "acknowledged", "uncertain", "absent"]

        func passes(_ direction: Proxy.Direction, _ connection: Int32, _ bytes: [UInt8]) -> Bool {
            let text = String(decoding: bytes, as: UTF8.self)
            let (isDead, isLost) = state.withLock { state in
                var change: String
                switch direction {
                case .request:
                    guard !text.contains("FUNCTION"), let found = Self.changes.first(where: text.contains) else {
                        return (false, false)
                    }
                    let note = found == "fleet_journal_note" ? Self.notes.first(where: text.contains) : nil
                    change = found + (note.map { " " + $0 } ?? "")
                    // These are said all the time; whether there was something to do, the answer tells. One that is said
                    // before the answer to another change is not waited for.
                    if ["fleet_claim", "fleet_promote"].contains(change) {
                        state.pending[connection] = state.pending[connection] ?? change
                        return (false, false)
                    }
                    state.pending[connection] = change
                    change = "before " + change
                case .answer:
                    let asked = state.pending.removeValue(forKey: connection)
                    // A job read and not yet known to the worker, or the answer to a change.
                    let isRead = text.contains("-0\r\n") && text.contains("symbol\r\n")
                    if asked == "fleet_claim" && !isRead || asked == "fleet_promote" && !text.hasPrefix("*2\r\n:1") {
                        return (false, false)
                    }
                    guard let found = asked ?? (isRead ? "read" : nil) else { return (false, false) }
                    change = "after " + found
                }
                state.seen.append(change)
                let time = state.seen.count { $0 == change }
                let isLost = change == lost && time == 1
                // There will be no answer, and a descriptor is soon another connection's.
                if isLost { state.pending[connection] = nil }
                return (change == last?.change && time == last?.time, isLost)
            }
            if isDead { kill() }
            return !isDead && !isLost
        }
    }

    @Test("loses nothing and executes no order twice", arguments: scenarios)
    func everyPoint(_ scenario: Scenario) async throws {
        let stack = try await Stack(redisOptions: ["--databases", "256"])
        if scenario.kind == .cancelOrder {
            // The cancel has something to do at the exchange: its order rests.
            let worker = try await stack.worker(["FLEET_EXCHANGES": scenario.exchange.rawValue])
            _ = try await stack.run(scenario.exchange, .submitOrder, Stack.resting("none"))
            worker.program.stop()
        }
        if let faults = scenario.faults { try await stack.control(faults) }
        // Once without a death, to count.
        let all = try await run(scenario, stack, 0, last: nil).seen
        var times: [String: Int] = [:]
        let points = all.compactMap { change in
            times[change, default: 0] += 1
            return times[change].flatMap { $0 <= 2 ? Point(change: change, time: $0) : nil }
        }
        try #require(points.count >= 3, "\(all)")
        print("\(scenario.testDescription): killed at \(points.count) changes: \(points.map(\.change))")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, point) in points.enumerated() {
                // A few at a time: the machine is small. Where an exchange's window is waited for, it has little to do.
                if index >= (scenario.loses == nil ? 4 : 12) { try await group.next() }
                group.addTask {
                    // On a slow machine a job can take another way (a result that is late is fenced): then once more.
                    for attempt in 0..<3 {
                        let database = 1 + index + attempt * points.count
                        if try await run(scenario, stack, database, last: point).died { return }
                    }
                    Issue.record("\(scenario.testDescription): was never killed at \(point)")
                }
            }
            try await group.waitForAll()
        }
    }

    /// One doomed worker in a database of its own, then one that lives. - Returns: the changes seen, and whether the
    /// worker came to the last one and died.
    private func run(
        _ scenario: Scenario, _ stack: Stack, _ database: Int, last: Point?
    ) async throws -> (seen: [String], died: Bool) {
        let (exchange, id, keys) = (scenario.exchange, "point-\(database)", Keys(scenario.exchange))
        let doomed = Mutex<Program?>(nil)
        let observer = Observer(last: last, lost: scenario.loses) { doomed.withLock { $0?.stop() } }
        let redis = Proxy(to: .unix(stack.redis.withLock(\.socket)), passes: observer.passes)
        let port = try #require(URL(string: stack.simulatorURL)?.port)
        let simulator = Proxy(to: .port(port), passes: observer.passes)
        let only = ["FLEET_EXCHANGES": exchange.rawValue, "FLEET_ORDER_RESULT_TTL": "3600"]
        let direct = stack.redisURL + "?db=\(database)"
        let client = try await RedisConnection.connect(
            to: try RedisURL(direct), on: LaneActor.loop, name: "kill-point")
        defer { client.close() }
        func push(_ kind: Kind, _ fields: [String: String]) async throws -> String? {
            let list = fields.sorted { $0.key < $1.key }.map { ($0.key, Array($0.value.utf8)) }
            return try await client.send(Stack.append(exchange, kind, list)).text
        }
        if scenario.deliveries > 0 {
            let stream = RedisArgument.text(keys.jobs(scenario.kind))
            _ = try await client.send(["XGROUP", "CREATE", stream, .text(Keys.group), 0, "MKSTREAM"])
            let entry = try #require(try await push(scenario.kind, scenario.fields.merging(["id": id]) { $1 }))
            _ = try await client.send(["XREADGROUP", "GROUP", .text(Keys.group), "ghost", "STREAMS", stream, ">"])
            _ = try await client.send([
                "XCLAIM", stream, .text(Keys.group), "ghost", 0, .text(entry), "IDLE", 60_000, "RETRYCOUNT",
                .int(scenario.deliveries),
            ])
            if scenario.wasBegun {
                _ = try await client.send([
                    "HSET", .text(keys.order(id)), "state", "sending", "owner", "ghost", "begun_ms", 1,
                ])
            }
        }
        let first = try Program(
            [Program.binaries + "/worker"],
            environment: stack.environment(only).merging([
                "REDIS_URL": "redis://127.0.0.1:\(redis.port)/\(database)",
                "FLEET_SIMULATOR_URL": "http://127.0.0.1:\(simulator.port)",
            ]) { $1 }, in: stack.directory)
        doomed.withLock { $0 = first }
        if scenario.deliveries == 0 { _ = try await push(scenario.kind, scenario.fields.merging(["id": id]) { $1 }) }
        if scenario.isCanceled {
            try await eventually("the order is uncertain or its worker dead", within: .seconds(100)) {
                let journal = RedisArgument.text(keys.order(id))
                if first.exitStatus != nil { return true }
                return try await client.send(["HEXISTS", journal, "uncertain_ms"]) == .integer(1)
            }
            _ = try await push(.cancelOrder, ["id": id + "-cancel", "symbol": "BTC/USDT", "order_id": id])
        }
        let ids = [id] + (scenario.isCanceled ? [id + "-cancel"] : [])
        func results() async throws -> [String]? {
            let texts = try await client.send(RedisCommand(["MGET"]) + ids.map(keys.result)).array?.compactMap(\.text)
            return texts?.count == ids.count ? texts : nil
        }
        try await eventually("\(scenario.name): a death or an end", within: .seconds(100)) {
            if first.exitStatus != nil { return true }
            return try await results() != nil
        }
        let survivor: Program? =
            first.exitStatus == nil
            ? nil
            : try Program(
                [Program.binaries + "/worker"],
                environment: stack.environment(only).merging(["REDIS_URL": direct]) { $1 }, in: stack.directory)
        let at = last.map { "killed at \($0)" } ?? "not killed"
        let texts = try await eventually("\(scenario.name): an end, \(at)", within: .seconds(120)) {
            try await results()
        }
        for text in texts { #expect(try JSONValue(text)["status"].text == scenario.status, "\(at): \(text)") }
        if scenario.isCanceled {
            for text in texts { #expect(try JSONValue(text)["data"]["status"].text == "canceled", "\(at): \(text)") }
        }
        try await eventually("\(scenario.name): all put away, \(at)") {
            var left = try await client.send(["ZCARD", .text(keys.delayed)]).int ?? 1
            for stream in Kind.allCases.map({ RedisArgument.text(keys.jobs($0)) }) {
                let replies = await client.pipeline([["XLEN", stream], ["XPENDING", stream, .text(Keys.group)]])
                left += (try replies[0].get().int ?? 1) + (try replies[1].get().array?.first?.int ?? 1)
            }
            left += try await client.send(["EXISTS", .text(keys.marker(id))]).int ?? 1
            return left == 0
        }
        #expect(try await client.send(["XLEN", .text(keys.dead)]).int == (scenario.isBuried ? 1 : 0), "\(at)")
        if scenario.kind == .submitOrder {
            #expect(try await stack.orders(exchange, jobId: id).count == scenario.orders, "\(at)")
        }
        // Its death may come after the result: with the answer to that.
        let death = "\(scenario.name): it was \(at)"
        let end = last == nil ? nil : try? await eventually(death, within: .seconds(5)) { first.exitStatus }
        withExtendedLifetime((survivor, redis, simulator)) {}
        return (observer.seen, end != nil)
    }
}
