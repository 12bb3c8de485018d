internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

struct Stats: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show every lane and kind: what waits, what runs, what is delayed, dead or paused.",
        discussion: """
            oldest is the age of the first job that waits. Beyond 10000 delayed or dead jobs of an exchange they are not
            counted by kind: its first row then has their number in all.
            """)
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let redis = try await openRedis()
        var objects: [[String: Any]] = []
        for exchange in try exchanges(nil) {
            let keys = Keys(exchange)
            let paused = try await redis.look("SMEMBERS", keys.paused).array?.compactMap(\.text) ?? []
            let delayed = try await count(redis.look("ZCARD", keys.delayed)) {
                let members = try await redis.look("ZRANGE", keys.delayed, 0, -1).array?.compactMap(\.text)
                // `["<kind>",…`
                return members?.compactMap { $0.split(separator: "\"").dropFirst().first.map(String.init) } ?? []
            }
            let dead = try await count(redis.look("XLEN", keys.dead)) {
                var kinds: [String] = []
                try await eachDeadJob(of: [exchange], on: redis) { kinds.append($0.kind) }
                return kinds
            }
            for kind in Kind.allCases {
                let stream = keys.jobs(kind)
                let length = try await redis.look("XLEN", stream).int ?? 0
                let reply = await redis.pipeline([["XINFO", "GROUPS", .text(stream)]])[0]
                // No group yet: nobody has worked on this stream. Its 4th, 6th and 8th values are consumers, pending
                // jobs and the last one delivered.
                let groups = reply.array?.compactMap(\.array) ?? []
                let group = groups.first { $0.count > 7 && $0[1].text == Keys.group }
                let inFlight = group?[5].int ?? 0
                let last = group?[7].text ?? "0-0"
                let first = try await redis.look("XRANGE", stream, .text("(" + last), "+", "COUNT", 1).array?.first
                let ms = first?.array?.first?.text.flatMap { Int($0.prefix { $0 != "-" }) }
                let age = ms.map { max(0, Int(clock.now()) - $0) }
                objects.append([
                    "exchange": exchange.rawValue, "kind": kind.rawValue, "waiting": max(0, length - inFlight),
                    "in_flight": inFlight, "delayed": delayed[kind] ?? NSNull(), "dead": dead[kind] ?? NSNull(),
                    "oldest_ms": age ?? NSNull(), "consumers": group?[3].int ?? 0,
                    "paused": paused.contains(kind.rawValue),
                ])
            }
        }
        let columns = ["waiting", "in_flight", "delayed", "dead", "oldest_ms", "consumers", "paused"]
        show(objects, ["exchange", "kind"] + columns, asJSON: json)
    }

    /// Jobs by kind; where they are too many for that, all of them as the first kind's.
    private func count(_ total: RedisValue, _ kinds: () async throws -> [String]) async throws -> [Kind: Int] {
        let total = total.int ?? 0
        guard total <= 10_000 else { return [Kind.allCases[0]: total] }
        let none = Dictionary(uniqueKeysWithValues: Kind.allCases.map { ($0, 0) })
        return try await kinds().compactMap(Kind.init).reduce(into: none) { $0[$1, default: 0] += 1 }
    }
}
