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
    private static let most = 10_000

    func run() async throws {
        let redis = try await openRedis()
        var objects: [[String: Any]] = []
        for exchange in Exchange.allCases {
            let keys = Keys(exchange)
            let paused = try await redis.send(["SMEMBERS", .text(keys.paused)]).array?.compactMap(\.text) ?? []
            let (delayed, dead) = (try await delayed(keys, redis), try await dead(exchange, redis))
            for kind in Kind.allCases {
                let stream = RedisArgument.text(keys.jobs(kind))
                let replies = await redis.pipeline([["XLEN", stream], ["XINFO", "GROUPS", stream]])
                let length = try replies[0].get().int ?? 0
                // No group yet: nobody has worked on this stream. Its 4th, 6th and 8th values are consumers, pending
                // jobs and the last one delivered.
                let groups = replies[1].array?.compactMap(\.array) ?? []
                let group = groups.first { $0.count > 7 && $0[1].text == Keys.group }
                let inFlight = group?[5].int ?? 0
                let last = group?[7].text ?? "0-0"
                let first = try await redis.send(["XRANGE", stream, .text("(" + last), "+", "COUNT", 1]).array?.first
                let ms = first?.array?.first?.text.flatMap { Int($0.prefix { $0 != "-" }) }
                let age = ms.map { max(0, Int(wallClockMs()) - $0) }
                objects.append([
                    "exchange": exchange.rawValue, "kind": kind.rawValue, "waiting": length - inFlight,
                    "in_flight": inFlight, "delayed": delayed(kind) ?? NSNull(), "dead": dead(kind) ?? NSNull(),
                    "oldest_ms": age ?? NSNull(), "consumers": group?[3].int ?? 0,
                    "paused": paused.contains(kind.rawValue),
                ])
            }
        }
        let columns = ["waiting", "in_flight", "delayed", "dead", "oldest_ms", "consumers", "paused"]
        show(objects, ["exchange", "kind"] + columns, asJSON: json)
    }

    /// How many jobs of a kind there are, as far as they are counted by kind.
    private typealias Count = (Kind) -> Int?

    private func delayed(_ keys: Keys, _ redis: RedisClient) async throws -> Count {
        let total = try await redis.send(["ZCARD", .text(keys.delayed)]).int ?? 0
        guard total <= Self.most else { return { $0 == Kind.allCases.first ? total : nil } }
        let members = try await redis.send(["ZRANGE", .text(keys.delayed), 0, .int(Self.most - 1)]).array ?? []
        let texts = members.compactMap(\.text)
        return { kind in texts.count { $0.hasPrefix("[\"\(kind.rawValue)\",") } }
    }

    private func dead(_ exchange: Exchange, _ redis: RedisClient) async throws -> Count {
        let total = try await redis.send(["XLEN", .text(Keys(exchange).dead)]).int ?? 0
        guard total <= Self.most else { return { $0 == Kind.allCases.first ? total : nil } }
        var kinds: [String: Int] = [:]
        try await DeadJob.pages(of: exchange, on: redis) { jobs in
            for job in jobs { kinds[job.kind, default: 0] += 1 }
            return true
        }
        return { [kinds] in kinds[$0.rawValue] ?? 0 }
    }
}
