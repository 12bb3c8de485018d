internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

struct OrderCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "order", abstract: "Look at an order's journal, and close one whose outcome is unknown.",
        subcommands: [ShowOrder.self, SettleOrder.self])
}

struct ShowOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show what is known of an order, its times in UTC.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "The job id under which it was submitted.") var id: String
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let journal = pairs(try await openRedis().send(["HGETALL", .text(Keys(exchange).order(id))]))
        if journal.isEmpty {
            throw Failure("no journal of the order '\(id)' on \(exchange): never sent, or more than seven days old")
        }
        if json {
            var members: [String: Any] = ["exchange": exchange.rawValue, "id": id]
            for (name, value) in journal {
                let number = name.hasSuffix("_ms") || ["sends", "tries", "absent"].contains(name) ? Int(value) : nil
                members[name] = name == "outcome" ? jsonObject("{\(value)}") : number ?? value as Any
            }
            return print(jsonText(members))
        }
        // First what has no time, then the steps in their order.
        let rest = journal.filter { !$0.name.hasSuffix("_ms") }.sorted { $0.name < $1.name }
        let steps = journal.filter { $0.name.hasSuffix("_ms") }.sorted { Int($0.value) ?? 0 < Int($1.value) ?? 0 }
        let rows = rest.map { [$0.name, $0.name == "outcome" ? "{\($0.value)}" : $0.value] }
        print(table(rows + steps.map { [String($0.name.dropLast(3)), Int($0.value).map(utc) ?? $0.value] }))
    }
}

extension OrderStatus: ExpressibleByArgument {}

struct SettleOrder: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "settle", abstract: "Say how an order ended whose outcome is unknown.",
        discussion: """
            Look the order up on the exchange first, by the client order id that its journal or result shows. Journal
            and result then say so for seven days, and the order leaves the dead jobs.
            """)
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "The job id under which it was submitted.") var id: String
    @Argument(help: "open, filled, partially_filled, canceled, expired; rejected: not placed.") var status: OrderStatus
    @Option(help: "Who found out what, and how.") var note = ""

    func run() async throws {
        let redis = try await openRedis()
        let keys = Keys(exchange)
        let replies = await redis.pipeline([
            ["HGET", .text(keys.order(id)), "outcome"], ["GET", .text(keys.result(id))],
        ])
        var data = jsonObject(try replies[0].get().text.map { "{\($0)}" })["data"] as? [String: Any] ?? [:]
        data["status"] = status.rawValue
        let outcome: Outcome =
            status == .rejected
            ? .ended(.rejected, code: "settled", "the order was never placed\(note.isEmpty ? "" : ": \(note)")")
            : .ok(jsonText(data))
        // What the result that is there says of its job stays.
        let now = clock.now()
        let fields = ["id", id].map { RedisValue.bytes(Array($0.utf8)) }
        let job = Job(exchange: exchange, kind: .submitOrder, entryId: "\(now)-0", fields: fields)
        let settled = jsonObject(outcome.result(of: job, worker: "", startedMs: now, finishedMs: now))
        let before = jsonObject(try replies[1].get().text).filter { !["status", "data", "error"].contains($0.key) }
        let result = settled.merging(before) { $1 }
        let state = status == .rejected ? "rejected" : "accepted"
        let reply = try await FunctionLibrary.call(
            "fleet_journal_settle", [keys.order(id), keys.result(id)],
            [.text(state), .text(outcome.json), .text(jsonText(result)), 604_800, .text(note)], on: redis)
        let found = reply.text ?? ""
        guard found == "settled" else {
            let stands = found.isEmpty ? "it has no journal" : "its journal says \(found)"
            throw Failure("the order '\(id)' on \(exchange) is not unknown: \(stands)")
        }
        try await eachDeadJob(of: [exchange], on: redis) { job in
            guard job.id == id, job.kind == Kind.submitOrder.rawValue else { return }
            _ = try await redis.send(["XDEL", .text(keys.dead), .text(job.entry)])
        }
        print("\(id) settled: \(status.rawValue)")
    }
}
