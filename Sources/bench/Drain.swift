internal import ArgumentParser
internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation

struct Drain: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure how fast workers drain a stream of tickers that their caches can answer.",
        discussion: """
            The ceiling is one blocking hiredis connection that does the least a correct worker must: XREADGROUP, and
            in one transaction SET for each job, XACK and XDEL for all; its next two reads are always under way.
            """)
    @Option(help: "Jobs a run.", transform: count) var jobs = 200_000
    @Option(help: "Numbers of workers, comma separated.", transform: counts) var workers = [1, 2, 4]
    @Option(help: "Runs of each; the medians count.", transform: count) var runs = 3
    @Flag(help: "Print JSON.") var json = false

    @Sendable private static func counts(_ text: String) throws -> [Int] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { try count(String($0)) }
    }

    /// A row for the ceiling, which has no worker, and for each number of workers.
    func measure(_ rig: Rig) throws -> Table {
        let counts = [0] + workers
        // Side by side, as machines drift.
        let runs = try (0..<runs).map { _ in try counts.map { try drain(rig, workers: $0) } }
        let medians = counts.indices.map { row in (0..<3).map { column in median(runs.map { $0[row][column] }) } }
        var table = Table(columns: ["jobs_per_s", "of_ceiling", "cpu_us_a_job", "redis_us_a_job", "of_ceiling's"])
        for (count, values) in zip(counts, medians) {
            let name = [0: "ceiling", 1: "1 worker"][count] ?? "\(count) workers"
            let ratios = zip(values, medians[0]).map(/)
            table.rows.append((name, [values[0], ratios[0], values[1], values[2], ratios[2]]))
        }
        return table
    }

    /// Jobs a second, and µs of the clients' and of Redis' processor time a job.
    private func drain(_ rig: Rig, workers: Int) throws -> [Double] {
        try rig.begin(workers: workers)
        try rig.fill(jobs)
        let cost = try rig.cost {
            try rig.release()
            if workers == 0 { try drainBare(rig.socket) }
            try rig.drained(jobs)
        }
        return [Double(jobs) / cost.seconds] + [cost.clients, cost.redis].map { $0 * 1e6 / Double(jobs) }
    }
}

/// Does the jobs of the stream with one blocking connection and nothing more than must be.
private func drainBare(_ socket: String) throws {
    let wire = try Wire(socket)
    let job = Job(exchange: .binance, kind: .fetchTicker, entryId: "\(wallClockMs())-12345", fields: [])
    let result = Rig.result(of: job, Rig.ticker)
    let read = ["XREADGROUP", "GROUP", Keys.group, "bench", "COUNT", "256", "STREAMS", Rig.stream, ">"]
    /// How many replies come before that of each read under way.
    var ahead = [0, 0]
    for _ in ahead { wire.append(read) }
    while !ahead.isEmpty {
        for _ in 0..<ahead.removeFirst() { try wire.next { _ in } }
        let ids = try wire.next { reply in (0..<reply[0][1].elements).map { reply[0][1][$0][0].text } }
        if ids.isEmpty { continue }
        wire.append(["MULTI"])
        for id in ids { wire.append(["SET", Rig.keys.result(id), result, "EX", "60"]) }
        wire.append(["XACK", Rig.stream, Keys.group] + ids)
        wire.append(["XDEL", Rig.stream] + ids)
        wire.append(["EXEC"])
        ahead.append(ids.count + 4)
        wire.append(read)
        wire.flush()
    }
}
