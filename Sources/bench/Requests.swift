internal import ArgumentParser
internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation

struct HTTP: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure the HTTP client against the simulator, beside wrk where that is installed.",
        discussion: """
            Each asks for five seconds, with 64 requests in flight. Then a thousand orders come at once: how many of them a
            worker has in flight side by side.
            """)
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) async throws -> Table {
        try rig.begin(workers: 0)
        let load = try await Load(rig.simulator, askers: 64, seconds: 5)
        let (rate, wrk) = (load.answers / load.seconds, try wrkRate(rig.simulator))
        let (orders, inFlight, elapsed) = try await ordersAtOnce(rig)
        return Table(
            columns: ["requests_per_s", "of_wrk", "answered", "in_flight", "ms"],
            rows: [
                ("client", [rate, rate / wrk, .nan, .nan, .nan]), ("wrk", [wrk, .nan, .nan, .nan, .nan]),
                ("1000 orders at once, 2 s each", [.nan, .nan, orders, inFlight, elapsed * 1000]),
            ])
    }

    /// A thousand orders of one worker, each answered two seconds late: those that ended well, the most that were in
    /// flight, each with a connection of its own, and the seconds it took.
    private nonisolated(nonsending) func ordersAtOnce(_ rig: Rig) async throws -> (
        ok: Double, inFlight: Double, seconds: Double
    ) {
        try rig.begin(workers: 1, concurrency: 1500)
        let (stream, result) = (Rig.keys.jobs(.submitOrder), Rig.keys.result("o-"))
        func push(_ first: Int, _ last: Int) throws {
            let order = ["symbol", "BTC/USDT", "side", "buy", "type", "market", "amount", "0.01"]
            let script =
                "for i = ARGV[1], ARGV[2] do redis.call('XADD', KEYS[1], '*', 'id', 'o-' .. i, unpack(ARGV, 3)) end"
            try rig.redis.call(["EVAL", script, "1", stream, "\(first)", "\(last)"] + order)
        }
        let worker = "/proc/\(rig.workers[0].processIdentifier)/fd"
        let files = { (try? FileManager.default.contentsOfDirectory(atPath: worker).count) ?? 0 }
        func wait() throws -> Int {
            var most = 0
            try Rig.eventually("the orders are done") {
                most = max(most, files())
                return try rig.redis.call(["XLEN", stream], \.integer) == 0
            }
            return most
        }
        let before = files()
        // It knows markets and time then.
        try push(0, 0)
        _ = try wait()
        try await Load.delay(rig.simulator, 2000)
        let begin = nowNs()
        try push(1, 1000)
        let most = try wait()
        let elapsed = Double(nowNs() - begin) / 1e9
        try await Load.delay(rig.simulator, 0)
        let script =
            "local ok = 0 for i = 1, 1000 do local r = redis.call('GET', KEYS[1] .. i) "
            + "if r and string.find(r, '\"status\":\"ok\"', 1, true) then ok = ok + 1 end end return ok"
        return (Double(try rig.redis.call(["EVAL", script, "1", result], \.integer)), Double(most - before), elapsed)
    }

    /// Requests a second of the same load; NaN without wrk.
    private func wrkRate(_ simulator: String) throws -> Double {
        let (pipe, url) = (Pipe(), Load.ticker(simulator).url)
        try Rig.start(["wrk", "-t1", "-c64", "-d5s", url], output: pipe)
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        return text.firstMatch(of: /Requests\/sec: +([0-9.]+)/).flatMap { Double($0.1) } ?? .nan
    }
}

/// What comes of asking the simulated Binance for tickers.
struct Load {
    /// Only those of status 200.
    let answers: Double
    let seconds, medianMs: Double

    static func ticker(_ simulator: String) -> HTTPRequest {
        HTTPRequest(.get, simulator + "/binance/api/v3/ticker/24hr?symbol=BTCUSDT")
    }

    /// Has the simulator send every answer that much late.
    static func delay(_ simulator: String, _ ms: Int) async throws {
        let control = HTTPClient(now: wallClockMs)
        defer { control.close() }
        _ = try await control.send(HTTPRequest(.post, simulator + "/control", body: "{\"latency_ms\":\(ms)}"))
    }

    /// Asks through one client, so many side by side, each once and then again until the time is over. Meanwhile the
    /// simulator sends every answer `latencyMs` late.
    init(_ simulator: String, askers: Int, seconds: Int = 0, latencyMs: Int = 0) async throws {
        let client = HTTPClient(now: wallClockMs)
        defer { client.close() }
        try await Self.delay(simulator, latencyMs)
        let (ticker, begin) = (Self.ticker(simulator), nowNs())
        let end = begin + UInt64(seconds) * 1_000_000_000
        let times = await withTaskGroup(of: [Double].self) { group in
            for _ in 0..<askers {
                group.addTask {
                    var times: [Double] = []
                    repeat {
                        let begin = nowNs()
                        let status = try? await client.send(ticker).status
                        if status == 200 { times.append(Double(nowNs() - begin) / 1e6) }
                    } while nowNs() < end
                    return times
                }
            }
            return await group.reduce(into: [], +=)
        }
        self.seconds = Double(nowNs() - begin) / 1e9
        try await Self.delay(simulator, 0)
        if times.isEmpty { throw NotMeasured("the simulator does not answer") }
        (answers, medianMs) = (Double(times.count), median(times))
    }
}
