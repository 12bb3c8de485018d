internal import ArgumentParser
internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation

struct Sharing: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Count the requests that ticker jobs cost an exchange when several workers do them.",
        discussion: """
            10,000 jobs for 100 markets of each exchange, a second old at most, come evenly to four workers; the
            simulator answers after 50 ms. All requests count, those for markets too. In the first second each market
            is asked for the first time.
            """)
    @Option(help: "Seconds in which the jobs come.", transform: count) var seconds = 10
    @Flag(help: "All jobs wait before the workers start.") var waiting = false
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) async throws -> Table {
        let (client, control) = (HTTPClient(now: wallClockMs), rig.simulator + "/control")
        defer { client.close() }
        func requests() async throws -> [Double] {
            let body = try await client.send(HTTPRequest(.get, control + "/stats")).body
            let all = try JSONDecoder().decode([String: Counts].self, from: Data(body))
            return Exchange.allCases.map { Double(all[$0.rawValue]?.requests.values.reduce(0, +) ?? 0) }
        }
        _ = try await client.send(HTTPRequest(.post, control, body: #"{"latency_ms":50}"#))
        let exchanges = Exchange.allCases.map(\.rawValue).joined(separator: ",")
        try rig.begin(workers: waiting ? 0 : 4, exchanges: exchanges)
        var begin = nowNs()
        var counts = [try await requests()]
        for job in 0..<10_000 {
            if counts.count == 1, nowNs() > begin + 1_000_000_000 { counts.append(try await requests()) }
            let (due, now) = (waiting ? 0 : begin + UInt64(job * seconds * 100_000), nowNs())
            if due > now + 1_000_000 { usleep(UInt32((due - now) / 1000)) }
            // In no order that a batch could follow.
            let market = String(format: "S%03d/USDT", 12 + job / 3 * 37 % 100)
            let stream = Keys(Exchange.allCases[job % 3]).jobs(.fetchTicker)
            try rig.redis.call(["XADD", stream, "*", "symbol", market])
        }
        if waiting {
            begin = nowNs()
            for _ in 0..<4 { try rig.startWorker(exchanges) }
        }
        try Rig.eventually("the jobs are done") {
            let streams = Exchange.allCases.map { Keys($0).jobs(.fetchTicker) }
            return try streams.allSatisfy { try rig.redis.call(["XLEN", $0], \.integer) == 0 }
        }
        let elapsed = Double(nowNs() - begin) / 1e9
        counts.append(try await requests())
        _ = try await client.send(HTTPRequest(.delete, control))
        // The last column is their sum.
        counts = counts.map { $0 + [$0.reduce(0, +)] }
        var table = Table(columns: ["requests", "per_s", "after_1_s"])
        for (index, name) in (Exchange.allCases.map(\.rawValue) + ["all"]).enumerated() {
            let spent = counts.map { counts[counts.count - 1][index] - $0[index] }
            let warm = elapsed > 1 ? spent[1] / (elapsed - 1) : .nan
            table.rows.append((name, [spent[0], spent[0] / elapsed, warm]))
        }
        return table
    }

    private struct Counts: Decodable { let requests: [String: Int] }
}
