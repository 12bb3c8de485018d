internal import ArgumentParser
internal import CHiredis
internal import Fleet
internal import Foundation
internal import Histogram

struct Latency: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure the time from enqueueing to the reply, at a fixed rate.",
        discussion: """
            Counted from when a job was to be sent, so that a stall counts for all who had to wait. The bare worker is
            two blocking hiredis connections: one reads the streams, one ends each job with the call that workers use.
            """)
    @Option(help: "Jobs a second.", transform: count) var rate = 1000
    @Option(help: "Seconds a run.", transform: count) var seconds = 10
    @Flag(help: "Also cancels, a tenth of the rate, without and within a flood of tickers.") var flood = false
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) throws -> Table {
        var table = Table(columns: ["p50_us", "p99_us", "p99.9_us"])
        func add(_ name: String, _ times: Histogram<UInt32>) {
            table.rows.append((name, [50, 99, 99.9].map(times.us)))
        }
        try rig.begin(workers: 1)
        add("bare XADD", try OpenLoop(rate: rate, seconds: seconds).bareTimes(rig))
        add("job to reply", try OpenLoop(rate: rate, seconds: seconds).replyTimes(rig, Rig.stream, Rig.fields))
        try rig.begin(workers: 0)
        let loop = OpenLoop(rate: rate, seconds: seconds)
        Thread.detachNewThread { [socket = rig.socket] in try? workBare(socket, jobs: loop.count) }
        add("the same by a bare worker", try loop.replyTimes(rig, Rig.stream, Rig.fields))
        guard flood else { return table }
        try rig.begin(workers: 1)
        let cancels = {
            try OpenLoop(rate: max(1, rate / 10), seconds: seconds).replyTimes(
                rig, Rig.keys.jobs(.cancelOrder), ["symbol", "BTC/USDT"])
        }
        add("cancel to reply", try cancels())
        // More than can be done meanwhile.
        try rig.fill(150_000 * (seconds + 2))
        try rig.release()
        add("the same in a flood", try cancels())
        if try rig.left == 0 { throw NotMeasured("the flood ended before the cancels") }
        return table
    }
}

/// Sends jobs at fixed times, whatever becomes of what was sent before. The first second goes ahead unmeasured.
private struct OpenLoop {
    let rate, seconds: Int
    private let begin = nowNs() + 100_000_000
    var count: Int { rate * (1 + seconds) }

    private func dueNs(_ index: Int) -> UInt64 { begin + UInt64(index) * 1_000_000_000 / UInt64(rate) }

    private func send(_ send: (_ index: Int) throws -> Void) rethrows {
        for index in 0..<count {
            let (due, now) = (dueNs(index), nowNs())
            // Awake for the last 0.1 ms, so that it is not missed.
            if due > now + 100_000 { usleep(UInt32((due - now - 100_000) / 1000)) }
            while nowNs() < due {}
            try send(index)
        }
    }

    /// The time of each job to the reply of its XADD, in ns.
    func bareTimes(_ rig: Rig) throws -> Histogram<UInt32> {
        var times = Histogram<UInt32>()
        try send { index in
            try rig.redis.call(["XADD", "bare", "*", "id", "\(index)"] + Rig.fields)
            if index >= rate { times.record(nowNs() - dueNs(index)) }
        }
        return times
    }

    /// The time of each job to its reply by a worker, in ns.
    func replyTimes(_ rig: Rig, _ stream: String, _ fields: [String]) throws -> Histogram<UInt32> {
        let (socket, reply) = (rig.socket, Rig.keys.reply("bench"))
        // What it fails to send is missed below.
        Thread.detachNewThread {
            guard let wire = try? Wire(socket) else { return }
            try? send { index in
                // Orders have ids that were never used before.
                let ids = ["id", "\(index)-\(begin)", "order_id", "o\(index)-\(begin)", "reply_to", reply]
                try wire.call(["XADD", stream, "*"] + ids + fields)
            }
        }
        var times = Histogram<UInt32>()
        for _ in 0..<count {
            let text = try rig.redis.call(["BLPOP", reply, "10"], \.[1].text)
            let now = nowNs()
            guard let index = text.firstMatch(of: /^\{"id":"(\d+)-/).flatMap({ Int($0.1) }) else {
                throw NotMeasured("a reply did not come within 10 s")
            }
            if index >= rate { times.record(now - dueNs(index)) }
        }
        return times
    }
}

/// Does so many jobs as they come, with nothing more than must be.
private func workBare(_ socket: String, jobs: Int) throws {
    let (reading, writing) = (try Wire(socket), try Wire(socket))
    let streams = Kind.allCases.map(Rig.keys.jobs)
    for stream in streams { try writing.call(["XGROUP", "CREATE", stream, Keys.group, "0", "MKSTREAM"]) }
    let read = ["XREADGROUP", "GROUP", Keys.group, "bare", "COUNT", "32", "BLOCK", "1000", "STREAMS"] + streams
    var left = jobs
    while left > 0 {
        let entries = try reading.call(read + streams.map { _ in ">" }) { reply in
            let entries = reply[0][1]
            // Entry id, job id and reply key, by the places of `replyTimes`.
            return (0..<entries.elements).map { index in
                (entries[index][0].text, entries[index][1][1].text, entries[index][1][5].text)
            }
        }
        for (entry, id, reply) in entries {
            let keys = [Rig.stream, Rig.keys.result(id), Rig.keys.marker(id), reply]
            let result = "{\"id\":\"\(id)\",\"data\":\(Rig.ticker)}"
            writing.append(["FCALL", "fleet_finish", "4"] + keys + [Keys.group, "bare", entry, result, "60", "60"])
        }
        for _ in entries { try writing.next { _ in } }
        left -= entries.count
    }
}

extension Histogram<UInt32> {
    /// Of values in ns, in µs.
    func us(_ percentile: Double) -> Double { Double(valueAtPercentile(percentile)) / 1000 }
}
