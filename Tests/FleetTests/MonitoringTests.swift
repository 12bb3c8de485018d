import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("What a worker shows", .serialized, .timeLimit(.minutes(2)))
struct MonitoringTests {
    @Test("keys, secrets and passwords never reach a log, a result or a metric")
    func secrets() async throws {
        let keys = [
            "BINANCE_KEY": "hunterAbinancekey", "BINANCE_SECRET": "hunterBbinancesecret",
            "BYBIT_KEY": "hunterCbybitkey",
            "BYBIT_SECRET": "hunterDbybitsecret", "KRAKEN_KEY": "hunterEkrakenkey",
            "KRAKEN_SECRET": Data("hunterFkrakensecret".utf8).base64EncodedString(),
        ]
        let stack = try await Stack(
            redisOptions: ["--requirepass", "hunterGredis"], redisUser: ":hunterGredis@", simulatorEnvironment: keys)
        // Another's secret: the exchanges refuse one worker's signatures.
        let wrong = keys.mapValues { $0 == keys["BINANCE_SECRET"] ? "hunterHwrong" : $0 }
        let workers = [
            try await stack.worker(keys.merging(["LOG_LEVEL": "trace", "FLEET_EXCHANGES": "bybit,kraken"]) { $1 }),
            try await stack.worker(wrong.merging(["LOG_LEVEL": "trace", "FLEET_EXCHANGES": "binance"]) { $1 }),
        ]
        var texts: [String] = []
        for exchange in Exchange.allCases {
            texts.append("\(try await stack.run(exchange, .fetchTicker, ["symbol": "BTC/USDT"]))")
            let order = try await stack.run(exchange, .submitOrder, Stack.market("s-1"))
            #expect(order["status"].text == (exchange == .binance ? "rejected" : "ok"), "\(order)")
            texts.append("\(order)")
        }
        try await stack.control(#"{"drop_after_rate":1}"#)
        for exchange in Exchange.allCases {
            let result = try await stack.run(
                exchange, .fetchTicker, ["id": "s-2", "symbol": "BTC/USDT", "max_age_ms": "0", "max_attempts": "1"])
            #expect(result["status"].text == "failed")
            texts.append("\(result)")
        }
        try await stack.restartRedis()
        for worker in workers {
            try await eventually("the loss of Redis is in the log") { worker.program.errors.contains("redis away") }
            let page = try #require(try await Stack.get(worker.metricsPort, "/metrics"))
            texts.append(String(decoding: page.body, as: UTF8.self))
            worker.program.signal(SIGTERM)
            #expect(try await worker.program.exited() == 0)
            texts += [worker.program.errors, worker.program.output]
        }
        let hidden = keys.values.map { $0 } + ["hunter"]
        for text in texts {
            for secret in hidden { #expect(!text.contains(secret), "\(secret) is in:\n\(text.prefix(2000))") }
        }
    }

    @Test("log lines of LOG_FORMAT=json are JSON, whatever a job's id or a symbol says")
    func jsonLogs() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        try await stack.push(.binance, .fetchTicker, ["id": "a\"\n{b", "symbol": "\u{1b}[31m\"", "traceparent": trace])
        try await eventually("the job's end is in the log") { worker.program.errors.contains(trace) }
        // And that of a job that ended well.
        let other = trace.replacing("31-01", with: "32-01")
        try await stack.push(.binance, .fetchTicker, ["symbol": "BTC/USDT", "traceparent": other])
        try await eventually("its trace is in the log") { worker.program.errors.contains(other) }
        worker.program.signal(SIGTERM)
        #expect(try await worker.program.exited() == 0)
        let lines = worker.program.errors.split(separator: "\n")
        #expect(lines.count > 3)
        for line in lines { #expect((try? JSONValue(String(line)))?["message"].text != nil, "\(line)") }
    }

    @Test("a worker whose log cannot be written works on", arguments: ["/dev/full", ">(true)"])
    func unwritableLog(sink: String) async throws {
        let stack = try await Stack()
        let worker = try Program(
            ["bash", "-c", "exec \(Program.binaries)/worker 2> \(sink)"], environment: stack.environment(),
            in: stack.directory)
        #expect(try await stack.run(.binance, .fetchTicker, ["symbol": "BTC/USDT"])["status"].text == "ok")
        worker.signal(SIGTERM)
        #expect(try await worker.exited() == 0)
    }

    @Test("the metrics page of a running worker is accepted by promtool and counts what was done")
    func page() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        for index in 0..<3 {
            _ = try await stack.run(.kraken, .fetchTicker, ["id": "m-\(index)", "symbol": "BTC/USD"])
        }
        let answer = try #require(try await Stack.get(worker.metricsPort, "/metrics"))
        let text = String(decoding: answer.body, as: UTF8.self)
        #expect(answer.status == 200)
        #expect(text.contains(/fleet_jobs_total\{[^}]*kind="fetch_ticker"[^}]*outcome="ok"[^}]*\} 3/), "\(text)")
        let file = try stack.directory.write(text, to: "page")
        if FileManager.default.isExecutableFile(atPath: "/usr/bin/promtool") {
            let promtool = try Program(["promtool", "check", "metrics"], input: file, in: stack.directory)
            _ = try await promtool.exited()
            let complaints = (promtool.errors + promtool.output).split(separator: "\n")
            #expect(complaints.isEmpty, "\(complaints)")
        } else {
            print("promtool is not installed: the page is not checked with it")
        }
    }

    @Test("what waits for a kind that the worker does not serve is counted too")
    func unservedKind() async throws {
        let stack = try await Stack()
        try await stack.push(.kraken, .submitOrder, Stack.market("u-1"))
        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken", "FLEET_KINDS": "fetch_ticker"])
        try await eventually("the stream's length is told") {
            try await Stack.figure(worker, "^fleet_stream_length.*submit_order") == 1
        }
    }

    @Test("a worker that drains for longer than a loop may stand still is alive all the time")
    func healthyWhileDraining() async throws {
        let stack = try await Stack()
        // The order's request and the question about it have no answer for ten seconds each.
        let fake = FakeHTTPServer { request in
            if request.target.contains("exchangeInfo") { return .text(binanceMarkets) }
            if request.target.hasSuffix("/time") { return .text(#"{"serverTime":\#(wallClockMs())}"#) }
            return .silence
        }
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance", "BINANCE_URL": fake.url])
        try await stack.push(.binance, .submitOrder, Stack.market("o"))
        try await eventually("the order is sent") { fake.requests.contains { $0.method == "POST" } }
        worker.program.signal(SIGTERM)
        let stop = ContinuousClock.now
        try await eventually("it has drained for more than fifteen seconds") {
            let status = try await Stack.get(worker.metricsPort, "/healthz")?.status
            try #require(status == 200, "after \(.now - stop)")
            return .now - stop > .seconds(17)
        }
        #expect(try await stack.backlog(.binance).pending == 1, "the order was in hand all that time")
        #expect(try await worker.program.exited() == 0)
    }

    private static let deployment = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "deploy")

    @Test("every metric that dashboards and alerts ask for is exported by a running worker")
    func dashboards() async throws {
        let manager = FileManager.default
        let folder = Self.deployment.appending(path: "grafana/dashboards")
        let boards = ((try? manager.contentsOfDirectory(atPath: folder.path)) ?? []).filter { $0.hasSuffix(".json") }
        let files =
            boards.map { folder.appending(path: $0) }
            + [Self.deployment.appending(path: "alerts.yml")]
            .filter { manager.fileExists(atPath: $0.path) }
        if boards.isEmpty { print("deploy/grafana/dashboards has no dashboards: not checked") }
        if files.count == boards.count { print("deploy/alerts.yml does not exist: not checked") }
        guard !files.isEmpty else { return }

        let stack = try await Stack()
        let worker = try await stack.worker()
        let page = try #require(try await Stack.get(worker.metricsPort, "/metrics"))
        let exported = Set(
            String(decoding: page.body, as: UTF8.self).matches(of: /(?m)^(\w+)[ {]/).map { String($0.1) })
        for file in files {
            let text = try String(contentsOf: file, encoding: .utf8)
            let names = Set(text.matches(of: /\bfleet_[a-z0-9_]+/).map { String($0.0) })
            #expect(!names.isEmpty, "\(file.lastPathComponent) asks for nothing")
            for name in names.sorted() {
                #expect(exported.contains(name), "\(file.lastPathComponent): \(name) is not exported")
            }
        }
    }
}
