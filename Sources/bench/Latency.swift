internal import ArgumentParser
internal import Fleet
internal import Foundation
internal import Histogram

struct Latency: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure the time from enqueueing to the reply, at a fixed rate.",
        discussion: "Counted from when a job was to be sent, so that a stall counts for all who had to wait.")
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
    private var count: Int { rate * (1 + seconds) }

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

extension Histogram<UInt32> {
    /// Of values in ns, in µs.
    func us(_ percentile: Double) -> Double { Double(valueAtPercentile(percentile)) / 1000 }
}
