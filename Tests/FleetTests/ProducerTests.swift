import Exchanges
import Foundation
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Producer", .serialized, .timeLimit(.minutes(2)))
struct ProducerTests {
    @Test("--wait prints the result and ends with 0, or with 1 when the job did not end ok")
    func wait() async throws {
        let stack = try await Stack()
        let worker = try await stack.worker()
        let ticker = try await stack.producer(["fetch-ticker", "binance", "BTC/USDT", "--wait"])
        #expect(ticker.status == 0, "\(ticker.errors)")
        #expect(ticker.output.contains("BTC/USDT") && ticker.output.contains("ok"))
        let json = try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--wait", "--json"])
        #expect(json.status == 0)
        #expect(try JSONValue(json.output)["data"]["symbol"].text == "BTC/USD")

        let order = try await stack.producer([
            "submit-order", "bybit", "BTC/USDT", "buy", "limit", "0.001", "--price", "32000", "--id", "p-1", "--wait",
            "--json",
        ])
        #expect(order.status == 0, "\(order.errors)\(order.output)")
        #expect(try JSONValue(order.output)["data"]["status"].text == "open")
        let cancel = try await stack.producer(["cancel-order", "bybit", "BTC/USDT", "p-1", "--wait", "--json"])
        #expect(cancel.status == 0, "\(cancel.errors)\(cancel.output)")
        #expect(try JSONValue(cancel.output)["data"]["status"].text == "canceled")
        let refresh = try await stack.producer(["refresh-cache", "binance", "BTC/USDT", "ETH/USDT", "--wait", "--json"])
        #expect(try JSONValue(refresh.output)["data"]["refreshed"].int == 2)

        let refused = try await stack.producer(["fetch-ticker", "binance", "NO/SUCH", "--wait"])
        #expect(refused.status == 1)
        #expect(refused.output.contains("rejected") && refused.output.contains("NO/SUCH"))
        withExtendedLifetime(worker) {}
    }

    @Test("nothing in time ends with 2 and says how to look later, and the result command finds it then")
    func timeout() async throws {
        let stack = try await Stack()
        let late = try await stack.producer(
            ["fetch-ticker", "binance", "BTC/USDT", "--wait", "--timeout", "0.2", "--id", "late-1"])
        #expect(late.status == 2)
        #expect(late.errors.contains("late-1"))
        let none = try await stack.producer(["result", "binance", "late-1"])
        #expect(none.status == 1)
        #expect(none.errors.contains("late-1"))
        let worker = try await stack.worker(["FLEET_EXCHANGES": "binance"])
        _ = try await stack.result(.binance, "late-1")
        let found = try await stack.producer(["result", "binance", "late-1", "--json"])
        #expect(found.status == 0)
        #expect(try JSONValue(found.output)["id"].text == "late-1")
        withExtendedLifetime(worker) {}
    }

    @Test("without --wait it prints the job's name and enqueues what the contract describes")
    func enqueueOnly() async throws {
        let stack = try await Stack()
        let named = try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--id", "n-1", "--max-age-ms", "0"])
        #expect(named.status == 0 && named.output == "n-1\n")
        let unnamed = try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--json"])
        let entry = try #require(try JSONValue(unnamed.output)["entry"].text)
        let entries = try await stack.command(["XRANGE", "fleet:{kraken}:jobs:fetch_ticker", "-", "+"]).array ?? []
        #expect(entries.count == 2)
        #expect(entries.last?.array?.first?.text == entry)
        let fields = entries.first?.array?.last?.array?.compactMap(\.text) ?? []
        #expect(fields == ["symbol", "BTC/USD", "max_age_ms", "0", "id", "n-1"])
    }

    @Test(
        "wrong usage ends with 64, says what was expected, and enqueues nothing",
        arguments: [
            [], ["nonsense"], ["fetch-ticker"], ["fetch-ticker", "ftx", "BTC/USDT"],
            ["fetch-ticker", "binance", "btcusdt"],
            ["submit-order", "binance", "BTC/USDT", "buy", "limit", "0.01"],
            ["submit-order", "binance", "BTC/USDT", "buy", "market", "-1"],
            ["submit-order", "binance", "BTC/USDT", "hold", "market", "1"],
            ["fetch-ticker", "binance", "BTC/USDT", "--timeout", "x"],
            ["fetch-ticker", "binance", "BTC/USDT", "--timeout", "-1"],
            ["fetch-ticker", "binance", "BTC/USDT", "--id", "a b"],
            ["cancel-order", "binance", "BTC/USDT"], ["stats", "--what"], ["enqueue", "/nonexistent/file"],
        ])
    func usage(_ arguments: [String]) async throws {
        let server = try await RedisServer()
        let program = try Program(
            [Program.binaries + "/producer"] + arguments, environment: ["REDIS_URL": server.url], in: server.directory)
        let status = try await program.exited()
        if arguments.isEmpty {
            // Called with nothing it teaches, and that is no mistake.
            #expect([0, 64].contains(status) && program.output.contains("SUBCOMMANDS"))
        } else {
            #expect(status == 64, "\(program.output)\(program.errors)")
            #expect(!program.errors.isEmpty)
        }
        let keys = try Program(["redis-cli", "-s", server.socket, "DBSIZE"], in: server.directory)
        _ = try await keys.exited()
        #expect(keys.output == "0\n")
    }

    @Test("--help teaches every command, and each command teaches its options")
    func help() async throws {
        let directory = try TemporaryDirectory()
        for command in [
            [], ["fetch-ticker"], ["submit-order"], ["cancel-order"], ["refresh-cache"], ["enqueue"], ["stats"],
            ["result"],
        ] {
            let program = try Program([Program.binaries + "/producer"] + command + ["--help"], in: directory)
            #expect(try await program.exited() == 0)
            #expect(program.output.contains("USAGE"))
        }
    }

    @Test("a Redis that is away or refuses ends with 1, a wrong address with 64, and no password is shown")
    func noRedis() async throws {
        let server = try await RedisServer(["--requirepass", "hunter2"])
        let cases: [(String, Int32)] = [
            ("unix:///tmp/nonexistent.sock", 1), ("redis://127.0.0.1:\(freePort())", 1), ("http://:hunter3@h", 64),
            ("unix://:hunter3@\(server.socket)", 1), ("unix://\(server.socket)", 1),
        ]
        for (url, expected) in cases {
            let program = try Program(
                [Program.binaries + "/producer", "stats"], environment: ["REDIS_URL": url], in: server.directory)
            #expect(try await program.exited() == expected, "\(url)")
            #expect(!program.errors.isEmpty)
            #expect(!(program.errors + program.output).contains("hunter"))
        }
    }

    @Test("enqueue takes the good lines of a file, refuses the others with their number and reason, and counts both")
    func enqueueFile() async throws {
        let stack = try await Stack()
        let good = #"{"exchange":"binance","kind":"fetch_ticker","symbol":"BTC/USDT","max_age_ms":0}"#
        let lines = [
            good, "", "not json", #"{"exchange":"ftx","kind":"fetch_ticker","symbol":"BTC/USDT"}"#,
            #"{"exchange":"kraken","kind":"fly","symbol":"BTC/USD"}"#, #"{"exchange":"kraken","kind":"fetch_ticker"}"#,
            #"{"exchange":"kraken","kind":"submit_order","id":"e-1","symbol":"BTC/USD","side":"buy","type":"market","amount":0.5}"#,
            #"{"exchange":"kraken","kind":"submit_order","id":"e-2","symbol":"BTC/USD","side":"buy","type":"market","amount":"0.5"}"#,
            "[1]", good,
        ]
        let file = try stack.directory.write(lines.joined(separator: "\n") + "\n", to: "jobs.jsonl")
        let finished = try await stack.producer(["enqueue", file])
        #expect(finished.output.contains("3 enqueued, 6 refused"), "\(finished.output)")
        #expect(finished.status == 1)
        let errors = finished.errors.split(separator: "\n")
        #expect(errors.count == 6, "\(finished.errors)")
        for (line, reason) in [(3, "JSON"), (4, "ftx"), (5, "fly"), (6, "symbol"), (7, "amount"), (9, "JSON")] {
            #expect(
                errors.contains { $0.contains("line \(line)") && $0.contains(reason) },
                "line \(line): \(finished.errors)")
        }
        #expect(try await stack.command(["XLEN", "fleet:{binance}:jobs:fetch_ticker"]).int == 2)
        #expect(try await stack.command(["XLEN", "fleet:{kraken}:jobs:submit_order"]).int == 1)

        let piped = try stack.directory.write(
            String(repeating: good + "\n", count: 2500) + good, to: "many.jsonl")
        let many = try await stack.producer(["enqueue"], input: piped)
        #expect(many.status == 0 && many.output.contains("2501 enqueued, 0 refused"), "\(many.output)\(many.errors)")
        #expect(try await stack.command(["XLEN", "fleet:{binance}:jobs:fetch_ticker"]).int == 2503)
    }

    @Test("stats counts what waits and what runs, with and without --json")
    func stats() async throws {
        let stack = try await Stack()
        for index in 0..<3 { try await stack.push(.kraken, .submitOrder, Stack.resting("s-\(index)")) }
        let json = try await stack.producer(["stats", "--json"])
        #expect(json.status == 0, "\(json.errors)")
        let rows = try JSONValue(json.output).list
        #expect(rows.count == Exchange.allCases.count * Kind.allCases.count)
        let row = try #require(rows.first { $0["exchange"].text == "kraken" && $0["kind"].text == "submit_order" })
        #expect(row["waiting"].int == 3)
        #expect(row["in_flight"].int == 0 && row["consumers"].int == 0)
        let table = try await stack.producer(["stats"])
        #expect(table.status == 0)
        #expect(table.output.contains(/kraken +submit_order +3 +0/), "\(table.output)")

        let worker = try await stack.worker(["FLEET_EXCHANGES": "kraken"])
        for index in 0..<3 { _ = try await stack.result(.kraken, "s-\(index)") }
        try await eventually("nothing waits") {
            let rows = try JSONValue(try await stack.producer(["stats", "--json"]).output).list
            let row = rows.first { $0["exchange"].text == "kraken" && $0["kind"].text == "submit_order" }
            return row?["waiting"].int == 0 && row?["consumers"].int == 1
        }
        withExtendedLifetime(worker) {}
    }
}
