internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation

struct HTTP: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure the HTTP client against the simulator, beside wrk where that is installed.")
    @Option(help: "Seconds a run.", transform: count) var seconds = 5
    @Option(help: "Requests in flight.", transform: count) var connections = 64
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) async throws -> Table {
        try rig.begin(workers: 0)
        let load = try await Load(rig.simulator, askers: connections, seconds: seconds)
        let (rate, wrk) = (load.answers / load.seconds, try wrkRate(rig.simulator))
        let many = try await Load(rig.simulator, askers: 1000, latencyMs: 200)
        return Table(
            columns: ["requests_per_s", "of_wrk", "answered", "connections", "ms"],
            rows: [
                ("client", [rate, rate / wrk, .nan, .nan, .nan]), ("wrk", [wrk, .nan, .nan, .nan, .nan]),
                ("1000 at once, 200 ms each", [.nan, .nan, many.answers, many.connections, many.seconds * 1000]),
            ])
    }

    /// Requests a second of the same load; NaN without wrk.
    private func wrkRate(_ simulator: String) throws -> Double {
        let (pipe, url) = (Pipe(), Load.ticker(simulator).url)
        try Rig.start(["wrk", "-t1", "-c\(connections)", "-d\(seconds)s", url], output: pipe)
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        return text.firstMatch(of: /Requests\/sec: +([0-9.]+)/).flatMap { Double($0.1) } ?? .nan
    }
}

/// What comes of asking the simulated Binance for tickers.
struct Load {
    /// Only those of status 200.
    let answers: Double
    let seconds, medianMs: Double
    /// The most that were open at a time.
    let connections: Double

    static func ticker(_ simulator: String) -> HTTPRequest {
        HTTPRequest(.get, simulator + "/binance/api/v3/ticker/24hr?symbol=BTCUSDT")
    }

    /// Asks through one client, so many side by side, each once and then again until the time is over. Meanwhile the
    /// simulator sends every answer `latencyMs` late.
    init(_ simulator: String, askers: Int, seconds: Int = 0, latencyMs: Int = 0) async throws {
        let (control, client) = (HTTPClient(now: wallClockMs), HTTPClient(now: wallClockMs))
        defer { for client in [control, client] { client.close() } }
        func delay(_ ms: Int) async throws {
            _ = try await control.send(HTTPRequest(.post, simulator + "/control", body: "{\"latency_ms\":\(ms)}"))
        }
        try await delay(latencyMs)
        let ticker = Self.ticker(simulator)
        let files = { @Sendable in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0 }
        let (before, begin) = (files(), nowNs())
        let end = begin + UInt64(seconds) * 1_000_000_000
        let connections = Task {
            var most = 0
            while !Task.isCancelled {
                most = max(most, files() - before)
                try? await Task.sleep(for: .milliseconds(10))
            }
            return most
        }
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
        connections.cancel()
        self.connections = Double(await connections.value)
        try await delay(0)
        if times.isEmpty { throw NotMeasured("the simulator does not answer") }
        (answers, medianMs) = (Double(times.count), median(times))
    }
}
