import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

extension Stack {
    /// Calls a function of the library as a worker would. A producer has to have loaded it.
    @discardableResult
    func call(_ function: String, _ keys: [String], _ arguments: [String]) async throws -> RedisValue {
        try await command(["FCALL", .text(function), .int(keys.count)] + keys + arguments)
    }

    /// Delivers the next job of the stream to the consumer `w`. - Returns: its entry id.
    @discardableResult
    func deliver(_ exchange: Exchange, _ kind: Kind) async throws -> String {
        let stream = RedisArgument.text(Keys(exchange).jobs(kind))
        // There already from the second time on.
        _ = await pipeline([["XGROUP", "CREATE", stream, "workers", 0, "MKSTREAM"]])
        let reply = try await command(["XREADGROUP", "GROUP", "workers", "w", "COUNT", 1, "STREAMS", stream, ">"])
        return try #require(reply.array?.first?.array?.last?.array?.first?.array?.first?.text)
    }

    /// Enqueues a job on Kraken, delivers it, and gives it up. - Returns: its entry id among the dead.
    @discardableResult
    func bury(_ id: String, _ kind: Kind, reason: String, line: String = "attempt 3: no answer") async throws -> String
    {
        let arguments =
            kind == .submitOrder
            ? ["submit-order", "kraken", "BTC/USD", "buy", "limit", "0.01", "--price", "32000"]
            : ["fetch-ticker", "kraken", "BTC/USD"]
        try #require(try await producer(arguments + ["--id", id]).status == 0)
        let (keys, entry) = (Keys(.kraken), try await deliver(.kraken, kind))
        let result =
            #"{"id":"\#(id)","kind":"\#(kind.rawValue)","exchange":"kraken","status":"unknown","data":"#
            + #"{"client_order_id":"co-1"},"error":{"code":"x","message":"y"},"attempt":3,"worker":"w","#
            + #""enqueued_ms":1795475465000,"started_ms":1795475465001,"finished_ms":1795475465002}"#
        let buried = try await call(
            "fleet_bury", [keys.jobs(kind), keys.result(id), keys.marker(id), keys.dead],
            ["workers", "w", entry, result, "600", "60", kind.rawValue, id, reason, line, "1795475465000", "3"])
        try #require(buried.int == 1)
        let last = try await command(["XREVRANGE", .text(keys.dead), "+", "-", "COUNT", 1])
        return try #require(last.array?.first?.array?.first?.text)
    }
}

@Suite("Dead letters", .serialized, .timeLimit(.minutes(2)))
struct DeadLetterTests {
    private func listed(_ stack: Stack, _ arguments: [String] = []) async throws -> [String?] {
        let finished = try await stack.producer(["dead", "list", "--json"] + arguments)
        #expect(finished.status == 0, "\(finished.errors)")
        return try JSONValue(finished.output).list.map { $0["id"].text }
    }

    @Test("list shows what the filters leave, and show all of one job with its history")
    func look() async throws {
        let stack = try await Stack()
        #expect(try await listed(stack) == [])
        let story = "1795475465000 w attempt 1: a\nattempt 2: b"
        let entry = try await stack.bury("t-1", .fetchTicker, reason: "attempts", line: story)
        try await stack.bury("t-2", .fetchTicker, reason: "poison")
        try await stack.bury("o-1", .submitOrder, reason: "unknown")
        #expect(try await listed(stack) == ["t-1", "t-2", "o-1"])
        #expect(try await listed(stack, ["--limit", "2"]) == ["t-1", "t-2"])
        #expect(try await listed(stack, ["--kind", "submit_order"]) == ["o-1"])
        #expect(try await listed(stack, ["--reason", "poison", "--exchange", "kraken"]) == ["t-2"])
        #expect(try await listed(stack, ["--exchange", "bybit"]) == [])
        #expect(try await listed(stack, ["--older-than", "1h"]) == [])
        let table = try await stack.producer(["dead", "list"])
        #expect(table.output.contains(/kraken +\d+-0 +t-1 +fetch_ticker +attempts +3 +\d+s +w\n/), "\(table.output)")

        for name in ["t-1", entry] {
            let shown = try await stack.producer(["dead", "show", "kraken", name])
            #expect(shown.status == 0)
            #expect(shown.output.contains(/symbol +BTC\/USD\n/), "\(shown.output)")
            #expect(shown.output.contains(/history +2026-11-23T23:11:05.000Z w attempt 1: a\n/), "\(shown.output)")
            #expect(shown.output.contains(/history +attempt 2: b/), "\(shown.output)")
            #expect(shown.output.contains(/enqueued +2026-11-23T23:11:05.000Z\n/), "\(shown.output)")
        }
        let json = try JSONValue(try await stack.producer(["dead", "show", "kraken", "t-1", "--json"]).output)
        #expect(json["history"].list == [.text("1795475465000 w attempt 1: a"), .text("attempt 2: b")])
        #expect(json["fields"].members == ["symbol": .text("BTC/USD")])
        #expect(json["reason"].text == "attempts" && json["attempts"].int == 3 && json["last_worker"].text == "w")
        let none = try await stack.producer(["dead", "show", "kraken", "t-9"])
        #expect(none.status == 1 && none.errors.contains("t-9"))
    }

    @Test("replay puts the chosen jobs back with their history, once, and takes their old results away")
    func replay() async throws {
        let stack = try await Stack()
        let entry = try await stack.bury("t-1", .fetchTicker, reason: "attempts")
        try await stack.bury("t-2", .fetchTicker, reason: "attempts")
        try await stack.bury("o-1", .submitOrder, reason: "unknown")
        try await stack.journal(.kraken, "o-1", ["state": "unknown", "outcome": #""status":"unknown""#])
        let dry = try await stack.producer(["dead", "replay", "--all", "--dry-run"])
        #expect(dry.status == 0 && dry.output.contains("3 would be replayed") && dry.output.contains("t-1"))
        #expect(try await listed(stack).count == 3)

        let one = try await stack.producer(["dead", "replay", entry])
        #expect(one.status == 0 && one.output == "1 replayed\n", "\(one.errors)")
        let key = RedisArgument.text(Keys(.kraken).jobs(.fetchTicker))
        let fields = try await stack.command(["XRANGE", key, "-", "+"]).array?.first?.array?.last?.array?
            .compactMap(\.text)
        #expect(fields?.contains("t-1") == true && fields?.contains { $0.contains("replayed at") } == true)
        #expect(try await stack.command(["GET", .text(Keys(.kraken).result("t-1"))]) == .null)
        let duplicate = try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--id", "t-1", "--json"])
        #expect(try JSONValue(duplicate.output)["duplicate"].text == "queued")

        let missing = try await stack.producer(["dead", "replay", "t-1", "t-2", "--json"])
        #expect(missing.status == 1 && missing.errors.contains("t-1") && !missing.errors.contains("t-2"))
        #expect(try JSONValue(missing.output)["replayed"].int == 1)
        let rest = try await stack.producer(["dead", "replay", "--kind", "submit_order"])
        #expect(rest.output == "1 replayed\n")
        #expect(try await listed(stack) == [])
        #expect(try await stack.command(["XLEN", key]).int == 2)
    }

    @Test("replay leaves a job whose id was enqueued again meanwhile, and the others do not wait for it")
    func replayDuplicate() async throws {
        let stack = try await Stack()
        for id in ["t-1", "t-2"] { try await stack.bury(id, .fetchTicker, reason: "attempts") }
        try await stack.command(["DEL", .text(Keys(.kraken).result("t-1"))])
        #expect(try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--id", "t-1"]).status == 0)
        let some = try await stack.producer(["dead", "replay", "--all"])
        #expect(some.status == 1 && some.output == "1 replayed\n" && some.errors.contains("t-1 stays"))
        #expect(try await listed(stack) == ["t-1"])
    }

    @Test("purge deletes what was chosen and nothing else, over more than one page")
    func purge() async throws {
        let stack = try await Stack()
        try await stack.bury("t-1", .fetchTicker, reason: "attempts")
        try await stack.bury("o-1", .submitOrder, reason: "unknown")
        let dead = RedisArgument.text(Keys(.bybit).dead)
        let old = (1...1200).map { index in
            RedisCommand(["XADD", dead, .text("\(index)-0"), "id", .text("old-\(index)"), "fleet_kind", "fetch_ticker"])
        }
        #expect(await stack.pipeline(old).allSatisfy { $0.error == nil })
        #expect(try await listed(stack, ["--exchange", "bybit", "--limit", "5000"]).count == 1200)

        #expect(try await stack.producer(["dead", "purge", "t-1", "--kind", "submit_order"]).status == 1)
        let dry = try await stack.producer(["dead", "purge", "--older-than", "1d", "--dry-run", "--json"])
        #expect(try JSONValue(dry.output) == JSONValue(#"{"purged":1200,"dry_run":true}"#))
        let aged = try await stack.producer(["dead", "purge", "--older-than", "1d"])
        #expect(aged.status == 0 && aged.output == "1200 purged\n", "\(aged.errors)")
        #expect(try await listed(stack) == ["t-1", "o-1"])
        #expect(try await stack.producer(["dead", "purge", "t-1"]).output == "1 purged\n")
        #expect(try await listed(stack) == ["o-1"])
        #expect(try await stack.producer(["dead", "purge", "--all"]).status == 0)
        #expect(try await listed(stack) == [])
    }

    // MARK: - Orders whose outcome is unknown

    private static let outcome =
        #""status":"unknown","data":{"client_order_id":"co-1"},"error":{"code":"order_unknown","message":"m"}"#

    /// An order that was sent and whose outcome nobody knows, its journal alone.
    private func lose(_ stack: Stack, _ id: String) async throws {
        let keys = Keys(.kraken)
        try await stack.call(
            "fleet_journal_begin", [keys.order(id), keys.paused], ["w 1-0", "5000", "600", "submit_order"])
        try await stack.call("fleet_journal_note", [keys.order(id)], ["uncertain", "w 1-0"])
        try await stack.call("fleet_journal_end", [keys.order(id)], ["unknown", Self.outcome, "600"])
    }

    @Test("order show prints the journal with its times in order, and says when there is none")
    func showOrder() async throws {
        let stack = try await Stack()
        let none = try await stack.producer(["order", "show", "kraken", "o-1"])
        #expect(none.status == 1 && none.output.isEmpty && none.errors.contains("o-1"))
        try await stack.bury("o-1", .submitOrder, reason: "unknown")
        try await lose(stack, "o-1")
        let key = RedisArgument.text(Keys(.kraken).order("o-1"))
        try await stack.command([
            "HSET", key, "begun_ms", "1795475465000", "sent_ms", "1795475465001", "uncertain_ms", "1795475465250",
            "ended_ms", "1795475470000", "send_until_ms", "1795475469999",
        ])
        let shown = try await stack.producer(["order", "show", "kraken", "o-1"])
        #expect(shown.status == 0)
        #expect(shown.output.contains(/state +unknown\n/) && shown.output.contains(/owner +w 1-0\n/))
        #expect(shown.output.contains(/outcome +\{"status":"unknown",.*\}\n/), "\(shown.output)")
        let times = shown.output.matches(of: /(\w+) +(2026-\S+)\n/).map { "\($0.1) \($0.2)" }
        #expect(
            times == [
                "begun 2026-11-23T23:11:05.000Z", "sent 2026-11-23T23:11:05.001Z",
                "uncertain 2026-11-23T23:11:05.250Z", "send_until 2026-11-23T23:11:09.999Z",
                "ended 2026-11-23T23:11:10.000Z",
            ], "\(shown.output)")
        let json = try JSONValue(try await stack.producer(["order", "show", "kraken", "o-1", "--json"]).output)
        #expect(json["state"].text == "unknown" && json["sends"].int == 1 && json["sent_ms"].int == 1_795_475_465_001)
        #expect(json["outcome"]["data"]["client_order_id"].text == "co-1")
    }

    @Test(
        "order settle closes an unknown order: journal, result and dead stream agree",
        arguments: ["filled", "partially_filled", "open", "canceled", "expired", "rejected"])
    func settle(_ status: String) async throws {
        let stack = try await Stack()
        try await stack.bury("o-1", .submitOrder, reason: "unknown")
        try await stack.bury("o-2", .submitOrder, reason: "unknown")
        try await stack.command(["XADD", .text(Keys(.kraken).dead), "*", "id", "o-1", "fleet_kind", "cancel_order"])
        try await lose(stack, "o-1")
        let settled = try await stack.producer(["order", "settle", "kraken", "o-1", status, "--note", "seen by eye"])
        #expect(settled.status == 0, "\(settled.errors)")
        let keys = Keys(.kraken)
        let result = try await stack.result(.kraken, "o-1")
        let isRejected = status == "rejected"
        #expect(result["status"].text == (isRejected ? "rejected" : "ok"))
        #expect(result["data"]["status"].text == (isRejected ? nil : status))
        #expect(result["data"]["client_order_id"].text == (isRejected ? nil : "co-1"))
        #expect(result["error"]["code"].text == (isRejected ? "settled" : nil))
        #expect(result["id"].text == "o-1" && result["attempt"].int == 3 && result["worker"].text == "w")
        let replies = await stack.pipeline([
            ["HMGET", .text(keys.order("o-1")), "state", "outcome", "note"], ["TTL", .text(keys.order("o-1"))],
            ["TTL", .text(keys.result("o-1"))],
        ])
        let journal = replies[0].array?.map(\.text) ?? []
        #expect(journal.first == (isRejected ? "rejected" : "accepted") && journal.last == "seen by eye")
        let outcome = try #require((journal[1]).flatMap(Outcome.written))
        #expect(outcome.status == (isRejected ? .rejected : .ok))
        #expect(replies[1...].allSatisfy { (604_700...604_800).contains($0.int ?? 0) })
        #expect(try await listed(stack) == ["o-2", "o-1"], "the cancel of the same id stays")

        let again = try await stack.producer(["order", "settle", "kraken", "o-1", "canceled"])
        #expect(again.status == 1)
        #expect(again.errors.contains(isRejected ? "rejected" : "accepted"), "\(again.errors)")
        #expect(try await stack.result(.kraken, "o-1") == result)
    }

    @Test("settle refuses an order that is not unknown, and makes a result where the old one is gone")
    func settleOther() async throws {
        let stack = try await Stack()
        let none = try await stack.producer(["order", "settle", "kraken", "o-1", "filled"])
        #expect(none.status == 1 && none.errors.contains("no journal"), "\(none.errors)")
        try await stack.call(
            "fleet_journal_begin", [Keys(.kraken).order("o-2"), Keys(.kraken).paused],
            ["w 1-0", "5000", "600", "submit_order"])
        let sending = try await stack.producer(["order", "settle", "kraken", "o-2", "filled"])
        #expect(sending.status == 1 && sending.errors.contains("sending"), "\(sending.errors)")
        #expect(try await stack.command(["EXISTS", .text(Keys(.kraken).result("o-2"))]).int == 0)

        try await lose(stack, "o-1")
        #expect(try await stack.producer(["order", "settle", "kraken", "o-1", "filled"]).status == 0)
        let result = try await stack.result(.kraken, "o-1")
        #expect(result["kind"].text == "submit_order" && result["exchange"].text == "kraken")
        #expect(result["id"].text == "o-1" && result["status"].text == "ok")
        for name in ["attempt", "enqueued_ms", "started_ms", "finished_ms"] { #expect(result[name].int != nil) }
    }
}
