internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Redis

struct Stats: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show every lane and kind: what waits and what runs.")
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let redis = try await openRedis()
        defer { redis.close() }
        var rows = [["exchange", "kind", "waiting", "in flight", "delayed", "dead", "oldest", "consumers"]]
        var objects: [String] = []
        for exchange in Exchange.allCases {
            let keys = Keys(exchange)
            let lane = await redis.pipeline([["ZCARD", .text(keys.delayed)], ["XLEN", .text(keys.dead)]])
            for kind in Kind.allCases {
                let stream = RedisArgument.text(keys.jobs(kind))
                let replies = await redis.pipeline([
                    ["XLEN", stream], ["XPENDING", stream, .text(Keys.group)],
                    ["XRANGE", stream, "-", "+", "COUNT", 1], ["XINFO", "GROUPS", stream],
                ])
                let length = try replies[0].get().int ?? 0
                // No group yet: nobody has worked on this stream.
                let inFlight = replies[1].array?.first?.int ?? 0
                let first = replies[2].array?.first?.array?.first?.text?.split(separator: "-").first
                let age = first.flatMap { Int64($0) }.map { max(0, wallClockMs() - $0) }
                let group = replies[3].array?.compactMap(\.array).first { $0.count > 3 && $0[1].text == Keys.group }
                let counts = [
                    length - inFlight, inFlight, lane[0].int ?? 0, lane[1].int ?? 0, group?[3].int ?? 0,
                ]
                rows.append(
                    [exchange.rawValue, kind.rawValue] + counts[0..<4].map(String.init)
                        + [age.map { "\(Double($0 / 100) / 10) s" } ?? "-", "\(counts[4])"])
                objects.append(
                    #"{"exchange":"\#(exchange.rawValue)","kind":"\#(kind.rawValue)","waiting":\#(counts[0])"#
                        + #","in_flight":\#(counts[1]),"delayed":\#(counts[2]),"dead":\#(counts[3])"#
                        + #","oldest_ms":\#(age.map(String.init) ?? "null"),"consumers":\#(counts[4])}"#)
            }
        }
        print(json ? "[" + objects.joined(separator: ",\n") + "]" : table(rows))
    }
}
