internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis
private import Synchronization

struct HTTP: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the HTTP client against the simulator, beside wrk where that is installed.")
    @Option(help: "Seconds a run.", transform: count) var seconds = 5
    @Option(help: "Requests in flight.", transform: count) var connections = 64
    @OptionGroup var output: OutputOptions

    func run() async throws {
        defer { Rig.end() }
        let exchange = try await SimulatedExchange(Rig())
        let rates = try await exchange.rates(seconds: seconds, connections: connections)
        let many = try await exchange.atOnce(1000)
        var table = Table(columns: ["requests_per_s", "of_wrk", "answered", "connections", "ms"])
        table.rows = [
            ("client", [rates.client, rates.wrk.map { rates.client / $0 }, nil, nil, nil]),
            ("wrk", [rates.wrk, nil, nil, nil, nil]),
            ("1000 at once, 200 ms each", [nil, nil, many.answered, many.connections, many.ms]),
        ]
        table.show(output)
    }
}

/// The simulated Binance and a client for it.
struct SimulatedExchange {
    let api: any ExchangeAPI
    private let http = HTTPClient(now: wallClockMs)
    private let url: String
    private let call: Call
    private let request: HTTPRequest

    init(_ rig: Rig) async throws {
        url = try rig.simulator()
        let configuration = try Configuration(["FLEET_SIMULATOR_URL": url, "FLEET_EXCHANGES": "binance"])
        api = configuration.apis[0]
        let stamp = Stamp(timestampMs: 0, nonce: 0)
        let markets = try await http.send(api.request(.instruments, stamp))
        guard case .instruments(let list) = try api.answer(to: .instruments, markets) else {
            throw NotMeasured("the simulator has no markets")
        }
        call = .tickers(Array(list.prefix(1)))
        request = try api.request(call, stamp)
    }

    func close() { http.close() }

    /// Every answer comes so many milliseconds late.
    func delay(_ ms: Int) async throws {
        _ = try await http.send(HTTPRequest(.post, url + "/control", body: "{\"latency_ms\":\(ms)}"))
    }

    /// One ticker, as a worker fetches it.
    func fetch() async throws {
        guard case .tickers(let tickers) = try api.answer(to: call, await http.send(request)), tickers.count == 1 else {
            throw NotMeasured("not the ticker that was asked for")
        }
    }

    func rates(seconds: Int, connections: Int) async throws -> (client: Double, wrk: Double?) {
        let (end, done) = (nowNs() + UInt64(seconds) * 1_000_000_000, Counter())
        try await withThrowingTaskGroup { group in
            for _ in 0..<connections {
                group.addTask {
                    while nowNs() < end {
                        guard try await http.send(request).status == 200 else { throw NotMeasured("refused") }
                        done.count.add(1, ordering: .relaxed)
                    }
                }
            }
            try await group.waitForAll()
        }
        let command = ["wrk", "-t1", "-c\(connections)", "-d\(seconds)s", request.url]
        let wrk = try await onThread { try Rig.output(of: command) }
        let rate = wrk?.firstMatch(of: /Requests\/sec: +([0-9.]+)/).flatMap { Double($0.1) }
        return (Double(done.count.load(ordering: .relaxed)) / Double(seconds), rate)
    }

    /// Sends requests together to a simulator that takes 200 ms for each.
    func atOnce(_ count: Int) async throws -> (answered: Double, connections: Double, ms: Double) {
        try await delay(200)
        // No connection is open yet.
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        let files = { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0 }
        let (before, begin, answered) = (files(), nowNs(), Counter())
        let watch = Task {
            var most = 0
            while !Task.isCancelled {
                most = max(most, files() - before)
                try? await Task.sleep(for: .milliseconds(10))
            }
            return most
        }
        await withDiscardingTaskGroup { group in
            for _ in 0..<count {
                group.addTask {
                    if (try? await http.send(request).status) == 200 { answered.count.add(1, ordering: .relaxed) }
                }
            }
        }
        let ms = Double(nowNs() - begin) / 1e6
        watch.cancel()
        let most = await watch.value
        try await delay(0)
        return (Double(answered.count.load(ordering: .relaxed)), Double(most), ms)
    }

    private final class Counter: Sendable { let count = Atomic<Int>(0) }
}
