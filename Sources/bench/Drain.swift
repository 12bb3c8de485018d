internal import ArgumentParser
internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

struct Drain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure how fast workers drain a stream of tickers that their caches can answer.",
        discussion: """
            The ceiling is one blocking hiredis connection that does the least a correct worker must: XREADGROUP, and
            in one transaction SET for each job, XACK and XDEL for all; its next two reads are always under way.
            """)
    @Option(help: "Jobs a run.", transform: count) var jobs = 200_000
    @Option(help: "Numbers of workers, comma separated.", transform: counts) var workers = [1, 2, 4]
    @Option(help: "Symbols the jobs ask for.", transform: count) var symbols = 1
    @Option(help: "Runs of each; the medians count.", transform: count) var runs = 3
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        try drain(Rig(), jobs: jobs, symbols: symbols, workers: workers, runs: runs).show(output)
    }

    @Sendable private static func counts(_ text: String) throws -> [Int] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { try count(String($0)) }
    }
}

/// A row for the ceiling and for each number of workers.
func drain(_ rig: Rig, jobs: Int, symbols: Int, workers: [Int], runs: Int) throws -> Table {
    /// Jobs a second, µs of the client's and of Redis' processor time a job; of each run.
    var figures: [Int: [[Double]]] = [:]
    for _ in 0..<runs {
        // Side by side, as machines drift.
        for count in [0] + workers {
            try rig.clear(symbols: symbols)
            let processes = count > 0 ? try rig.workers(count) : []
            defer { Rig.stop(processes) }
            try rig.fill(jobs, symbols: symbols)
            let client = { count > 0 ? processes.reduce(0) { $0 + $1.seconds } : ownSeconds() }
            let before = (client: client(), redis: try rig.redisSeconds(), ns: nowNs())
            try rig.release()
            if count == 0 { try rig.drainBare(jobs) }
            try rig.drained(jobs)
            let seconds = Double(nowNs() - before.ns) / 1e9
            let spent = [client() - before.client, try rig.redisSeconds() - before.redis]
            figures[count, default: []].append([Double(jobs) / seconds] + spent.map { $0 * 1e6 / Double(jobs) })
        }
    }
    let medians = figures.mapValues { runs in (0..<3).map { column in median(runs.map { $0[column] }) } }
    let ceiling = medians[0] ?? [1, 1, 1]
    var table = Table(columns: ["jobs_per_s", "of_ceiling", "cpu_us_a_job", "redis_us_a_job", "of_ceiling's"])
    for count in [0] + workers {
        guard let values = medians[count] else { continue }
        let name = count == 0 ? "ceiling" : count == 1 ? "1 worker" : "\(count) workers"
        table.rows.append((name, [values[0], values[0] / ceiling[0], values[1], values[2], values[2] / ceiling[2]]))
    }
    return table
}

private func ownSeconds() -> Double {
    var usage = rusage()
    getrusage(RUSAGE_SELF.rawValue, &usage)
    return [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6 }
}

extension Rig {
    /// A result as a worker would write it.
    private static var result: String {
        let id = "\(wallClockMs())-12345"
        let job = Job(exchange: .binance, kind: .fetchTicker, entryId: id, fields: [])
        return Outcome.ok(ticker, source: .l1).result(
            of: job, worker: "a-worker-of-8-12345-abcd", startedMs: wallClockMs(), finishedMs: wallClockMs())
    }

    /// Does the jobs of the stream with one blocking connection and nothing more than must be.
    fileprivate func drainBare(_ jobs: Int) throws {
        let wire = try Wire(socket)
        let (stream, result, prefix) = (strdup(Self.stream), Self.result, Self.keys.result(""))
        let key = UnsafeMutableRawBufferPointer.allocate(byteCount: prefix.utf8.count + 64, alignment: 1)
        defer {
            free(stream)
            key.deallocate()
        }
        key.copyBytes(from: prefix.utf8)
        let name = key.baseAddress?.assumingMemoryBound(to: CChar.self)
        let streamLength = Self.stream.utf8.count
        func read() {
            wire.add("XREADGROUP", "GROUP", "workers", "bench", "COUNT", "256", "STREAMS")
            wire.add(stream, streamLength)
            wire.add(">")
            wire.end()
        }
        /// How many replies come before that of each read under way.
        var ahead = [0, 0]
        for _ in ahead { read() }
        while !ahead.isEmpty {
            for _ in 0..<ahead.removeFirst() { try wire.next { _ in } }
            let count = try wire.next { reply in
                let entries = reply[0][1]
                if entries.elements == 0 { return 0 }
                wire.add("MULTI")
                wire.end()
                result.withCString { text in
                    for index in 0..<entries.elements {
                        let id = entries[index][0]
                        key[prefix.utf8.count...].copyBytes(from: UnsafeRawBufferPointer(start: id.str, count: id.len))
                        wire.add("SET")
                        wire.add(name, prefix.utf8.count + id.len)
                        wire.add(text, result.utf8.count)
                        wire.add("EX", "60")
                        wire.end()
                    }
                }
                for isDeletion in [false, true] {
                    wire.add(isDeletion ? "XDEL" : "XACK")
                    wire.add(stream, streamLength)
                    if !isDeletion { wire.add("workers") }
                    for index in 0..<entries.elements { wire.add(entries[index][0].str, entries[index][0].len) }
                    wire.end()
                }
                wire.add("EXEC")
                wire.end()
                return entries.elements
            }
            guard count > 0 else { continue }
            ahead.append(count + 4)
            read()
            wire.flush()
        }
    }
}
