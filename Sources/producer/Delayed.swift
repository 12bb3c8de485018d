internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

struct Delayed: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Jobs that are not due yet: delayed, repeated, and between two attempts.",
        subcommands: [ListDelayed.self, RemoveDelayed.self])
}

struct ListDelayed: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List them, the next due first.")
    @Argument(help: "One exchange; none: all.") var exchange: Exchange?
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let redis = try await openRedis()
        var objects: [[String: Any]] = []
        for exchange in try exchanges(exchange) {
            // As many as fleet_unschedule looks at.
            let found = try await redis.look("ZRANGE", Keys(exchange).delayed, 0, 99_999, "WITHSCORES")
            for (member, score) in pairs(found) {
                // As fleet_enqueue and fleet_retry write it: kind, id, every (ms), fields, a repetition's last entry.
                // The second one's id is an entry's, and the job's is among the fields, where an empty one is absent.
                let job = (try? JSONSerialization.jsonObject(with: Data(member.utf8))) as? [Any] ?? []
                guard job.count > 3, let every = job[2] as? Int, let texts = job[3] as? [String] else { continue }
                let fields = Dictionary(pairs(texts).filter { !$0.value.isEmpty }.map { ($0.name, $0.value) }) { $1 }
                let due = Double(score).flatMap { Int(exactly: $0.rounded()) } ?? 0
                objects.append([
                    "exchange": exchange.rawValue, "id": fields["id"] ?? job[1], "kind": job[0], "due_ms": due,
                    "due_in_ms": max(0, due - Int(clock.now())), "every_ms": every > 0 ? every : NSNull(),
                    "attempt": fields["fleet_attempt"].flatMap { Int($0) } ?? 1,
                ])
            }
        }
        show(objects, ["exchange", "id", "kind", "due_in_ms", "every_ms", "attempt"], asJSON: json)
    }
}

struct RemoveDelayed: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Take a delayed job or a repetition back.",
        discussion: "One between two attempts stays: what it began has to be ended.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "The id of the job or of the repetition.") var id: String

    func run() async throws {
        let keys = Keys(exchange)
        let removed = try await FunctionLibrary.call(
            "fleet_unschedule", [keys.delayed, keys.marker(id)], [.text(id)], on: openRedis())
        guard removed.int ?? 0 > 0 else { throw Failure("nothing delayed has the id '\(id)' on \(exchange)") }
        print("\(id) removed")
    }
}
