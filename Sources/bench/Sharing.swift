internal import ArgumentParser
internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation

struct Sharing: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Count the requests that ticker jobs cost an exchange when several workers do them.",
        discussion: """
            Jobs for 100 markets of each exchange, a second old at most, come evenly; the simulator answers after 50 ms.
            All requests count, those for markets too. In the first second each market is asked for the first time.
            """)
    @Option(help: "Ticker jobs.", transform: count) var jobs = 10_000
    @Option(help: "Seconds in which they come.", transform: count) var seconds = 10
    @Option(help: "Workers.", transform: count) var workers = 4
    @Flag(help: "All jobs wait before the workers start.") var waiting = false
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) async throws -> Table {
        let client = HTTPClient(now: wallClockMs)
        defer { client.close() }
        func ask(_ request: HTTPRequest) async throws -> [UInt8] { try await client.send(request).body }
        func requests() async throws -> [Double] {
            let body = try await ask(HTTPRequest(.get, rig.simulator + "/control/stats"))
            let all = try JSONDecoder().decode([String: Counts].self, from: Data(body))
            return Exchange.allCases.map { Double(all[$0.rawValue]?.requests.values.reduce(0, +) ?? 0) }
        }
        _ = try await ask(HTTPRequest(.post, rig.simulator + "/control", body: #"{"latency_ms":50}"#))
        let exchanges = Exchange.allCases.map(\.rawValue).joined(separator: ",")
        try rig.begin(workers: waiting ? 0 : workers, exchanges: exchanges)
        var begin = nowNs()
        var counts = [try await requests()]
        for job in 0..<jobs {
            if counts.count == 1, nowNs() > begin + 1_000_000_000 { counts.append(try await requests()) }
            let due = waiting ? 0 : begin + UInt64(job) * UInt64(seconds) * 1_000_000_000 / UInt64(jobs)
            let now = nowNs()
            if due > now + 1_000_000 { usleep(UInt32((due - now) / 1000)) }
            let exchange = Exchange.allCases[job % 3]
            // In no order that a batch could follow.
            let market = String(format: "S%03d/USDT", 12 + job / 3 * 37 % 100)
            try rig.redis.call(["XADD", Keys(exchange).jobs(.fetchTicker), "*", "symbol", market])
        }
        if waiting {
            begin = nowNs()
            for _ in 0..<workers { try rig.startWorker(exchanges) }
        }
        try Rig.eventually("\(jobs) jobs are done") {
            let left = try Exchange.allCases.reduce(0) {
                $0 + (try rig.redis.call(["XLEN", Keys($1).jobs(.fetchTicker)], \.integer))
            }
            return left == 0 ? () : nil
        }
        let elapsed = Double(nowNs() - begin) / 1e9
        counts.append(try await requests())
        _ = try await ask(HTTPRequest(.delete, rig.simulator + "/control"))
        func row(_ name: String, _ indices: Range<Int>) -> (String, [Double]) {
            let spent = counts.map { $0[indices].reduce(0, +) }
            let warm = elapsed > 1 ? (spent[spent.count - 1] - spent[1]) / (elapsed - 1) : .nan
            return (name, [spent[spent.count - 1] - spent[0], (spent[spent.count - 1] - spent[0]) / elapsed, warm])
        }
        return Table(
            columns: ["requests", "per_s", "after_1_s"],
            rows: Exchange.allCases.indices.map { row(Exchange.allCases[$0].rawValue, $0..<$0 + 1) } + [
                row("all", 0..<3)
            ])
    }

    private struct Counts: Decodable { let requests: [String: Int] }
}
