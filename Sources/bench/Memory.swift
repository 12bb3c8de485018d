internal import ArgumentParser
internal import CHiredis
internal import Fleet
internal import Foundation

struct Memory: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure a worker's resident memory while very many jobs wait.")
    @Option(help: "Jobs that wait.", transform: count) var waiting = 1_000_000
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        let (idle, most, after) = try memory(Rig(), waiting: waiting)
        var table = Table(columns: ["resident_mib"])
        table.rows = [("idle", [idle]), ("most while \(waiting) wait", [most]), ("after draining", [after])]
        table.show(output)
    }
}

func memory(_ rig: Rig, waiting: Int) throws -> (idle: Double, most: Double, after: Double) {
    try rig.clear()
    let processes = try rig.workers(1)
    defer { Rig.stop(processes) }
    try rig.fill(waiting)
    let idle = processes[0].resident("VmRSS")
    try rig.release()
    try rig.drained(waiting)
    return (idle, processes[0].resident("VmHWM"), processes[0].resident("VmRSS"))
}

/// Milliseconds from the start of a worker to the reply to a job that waits for it.
func startMs(_ rig: Rig) throws -> Double {
    let times = try (0..<5).map { _ in
        try rig.clear()
        let reply = Rig.keys.reply("bench")
        let fields = ["symbol", "S0/USDT", "max_age_ms", "86400000", "reply_to", reply]
        try rig.redis.call(["XADD", Rig.stream, "*"] + fields) { _ in }
        let begin = nowNs()
        let process = try rig.worker()
        defer { Rig.stop([process]) }
        guard try rig.redis.call(["BLPOP", reply, "20"], { $0.elements }) == 2 else {
            throw NotMeasured("a worker did not do its first job")
        }
        return Double(nowNs() - begin) / 1e6
    }
    return median(times)
}

/// Percent of a core that a worker of all exchanges uses while there is nothing to do.
func idlePercent(_ rig: Rig, seconds: UInt32) throws -> Double {
    try rig.clear()
    let process = try rig.worker(["FLEET_EXCHANGES": "binance,bybit,kraken"])
    defer { Rig.stop([process]) }
    sleep(2)
    let before = process.seconds
    sleep(seconds)
    return (process.seconds - before) / Double(seconds) * 100
}
