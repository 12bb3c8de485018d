internal import ArgumentParser
internal import Fleet
internal import Foundation
internal import Histogram

struct Latency: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the time from enqueueing to the reply, at a fixed rate.",
        discussion: "Counted from when a job was to be sent, so that a stall counts for all who had to wait.")
    @Option(help: "Jobs a second.", transform: count) var rate = 1000
    @Option(help: "Seconds a run.", transform: count) var seconds = 10
    @Flag(help: "Also cancels, a tenth of the rate, without and within a flood of tickers.") var flood = false
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        let rig = try Rig()
        var table = try await latency(rig, rate: rate, seconds: seconds)
        if flood { table.rows += try await cancelLatency(rig, rate: max(1, rate / 10), seconds: seconds) }
        table.show(output)
    }
}

func latency(_ rig: Rig, rate: Int, seconds: Int) async throws -> Table {
    try rig.clear()
    let processes = try rig.workers(1)
    defer { Rig.stop(processes) }
    let fields = ["symbol", "S0/USDT", "max_age_ms", "86400000"]
    var bare = Histogram<UInt32>()
    let begin = nowNs()
    try openLoop(rig.socket, rate, seconds, begin: begin) { wire, index in
        try wire.call(["XADD", "bare", "*", "id", "\(index)"] + fields) { _ in }
        if index >= rate { bare.record(nowNs() - due(index, rate, begin)) }
    }
    let jobs = try await replies(rig, rate, seconds, Rig.stream, fields)
    var table = Table(columns: ["p50_us", "p99_us", "p99.9_us"])
    table.rows = [("bare XADD", percentiles(bare)), ("job to reply", percentiles(jobs))]
    return table
}

private func cancelLatency(_ rig: Rig, rate: Int, seconds: Int) async throws -> [(String, [Double?])] {
    _ = try rig.simulator()
    try rig.clear()
    let processes = try rig.workers(1)
    defer { Rig.stop(processes) }
    let (stream, fields) = (Rig.keys.jobs(.cancelOrder), ["symbol", "BTC/USDT"])
    let calm = try await replies(rig, rate, seconds, stream, fields)
    // More than can be done meanwhile.
    try rig.fill(150_000 * (seconds + 2))
    try rig.release()
    let flooded = try await replies(rig, rate, seconds, stream, fields)
    if try rig.redis.call("XLEN", Rig.stream) == 0 { throw NotMeasured("the flood ended before the cancels") }
    return [("cancel to reply", percentiles(calm)), ("the same in a flood", percentiles(flooded))]
}

/// Sends jobs at their times, and takes the time of each to its reply, in ns.
private func replies(
    _ rig: Rig, _ rate: Int, _ seconds: Int, _ stream: String, _ fields: [String]
) async throws -> Histogram<UInt32> {
    let (socket, reply) = (rig.socket, Rig.keys.reply(UUID().uuidString))
    let begin = nowNs() + 100_000_000
    async let sent: Void = onThread {
        try openLoop(socket, rate, seconds, begin: begin) { wire, index in
            // Orders have ids that were never used before.
            let ids = ["id", "\(index)-\(begin)", "order_id", "o\(index)-\(begin)", "reply_to", reply]
            try wire.call(["XADD", stream, "*"] + ids + fields) { _ in }
        }
    }
    let received = try await onThread {
        let wire = try Wire(socket)
        var histogram = Histogram<UInt32>()
        for _ in 0..<(rate * (1 + seconds)) {
            let text = try wire.call(["BLPOP", reply, "10"]) { $0[1].text }
            let now = nowNs()
            guard let index = text.firstMatch(of: /^\{"id":"(\d+)-/).flatMap({ Int($0.1) }) else {
                throw NotMeasured("a reply did not come within 10 s")
            }
            if index >= rate { histogram.record(now - due(index, rate, begin)) }
        }
        return histogram
    }
    try await sent
    return received
}

/// When a job is to be sent.
private func due(_ index: Int, _ rate: Int, _ begin: UInt64) -> UInt64 {
    begin + UInt64(index) * 1_000_000_000 / UInt64(rate)
}

/// Sends at fixed times, whatever becomes of what was sent before. The first second goes ahead unmeasured.
private func openLoop(
    _ socket: String, _ rate: Int, _ seconds: Int, begin: UInt64, send: (Wire, _ index: Int) throws -> Void
) throws {
    let wire = try Wire(socket)
    for index in 0..<(rate * (1 + seconds)) {
        let (due, now) = (due(index, rate, begin), nowNs())
        // Awake for the last 0.1 ms, so that it is not missed.
        if due > now + 100_000 { usleep(UInt32((due - now - 100_000) / 1000)) }
        while nowNs() < due {}
        try send(wire, index)
    }
}

private func percentiles(_ histogram: Histogram<UInt32>) -> [Double?] {
    [50, 99, 99.9].map { Double(histogram.valueAtPercentile($0)) / 1000 }
}
