import Exchanges
import Foundation
import Redis
import Synchronization
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

        let submit = [
            "submit-order", "bybit", "BTC/USDT", "buy", "limit", "0.001", "--price", "32000", "--id", "p-1", "--wait",
            "--json",
        ]
        let order = try await stack.producer(submit)
        #expect(order.status == 0, "\(order.errors)\(order.output)")
        #expect(try JSONValue(order.output)["data"]["status"].text == "open")
        let again = try await stack.producer(submit)
        #expect(again.status == 0 && again.output == order.output && again.errors.contains("finished"))
        let other = try await stack.producer(["fetch-ticker", "bybit", "BTC/USDT", "--id", "p-1", "--wait"])
        #expect(other.status == 1 && other.output.isEmpty && other.errors.contains("finished"))
        let cancel = try await stack.producer(["cancel-order", "bybit", "BTC/USDT", "p-1", "--wait", "--json"])
        #expect(cancel.status == 0, "\(cancel.errors)\(cancel.output)")
        #expect(try JSONValue(cancel.output)["data"]["status"].text == "canceled")
        #expect(cancel.errors.isEmpty)
        let mistyped = try await stack.producer(["cancel-order", "bybit", "BTC/USDT", "p-l", "--wait"])
        #expect(mistyped.status == 0 && mistyped.output.contains("canceled"), "\(mistyped.output)")
        #expect(mistyped.errors == "producer: no such order had been sent; it is prevented for seven days\n")
        let refresh = try await stack.producer(["refresh-cache", "binance", "BTC/USDT", "ETH/USDT", "--wait", "--json"])
        #expect(try JSONValue(refresh.output)["data"]["refreshed"].int == 2)

        for _ in 1...2 {
            let refused = try await stack.producer(["fetch-ticker", "binance", "NO/SUCH", "--id", "p-2", "--wait"])
            #expect(refused.status == 1)
            #expect(refused.output.contains("rejected") && refused.output.contains("NO/SUCH"))
        }
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
            ["fetch-ticker", "binance", "BTC/USDT", "--id", ""],
            ["cancel-order", "binance", "BTC/USDT"], ["stats", "--what"], ["enqueue", "/nonexistent/file"],
            ["fetch-ticker", "binance", "BTC/USDT", "--in", "5x"],
            ["fetch-ticker", "binance", "BTC/USDT", "--in", "0"],
            ["fetch-ticker", "binance", "BTC/USDT", "--at", "tomorrow"],
            ["fetch-ticker", "binance", "BTC/USDT", "--at", "1764576000"],
            ["fetch-ticker", "binance", "BTC/USDT", "--in", "5m", "--at", "2026-12-01T08:00:00Z"],
            ["fetch-ticker", "binance", "BTC/USDT", "--in", "5m", "--deadline", "10"],
            ["fetch-ticker", "binance", "BTC/USDT", "--every", "5m", "--deadline", "1000"],
            ["fetch-ticker", "binance", "BTC/USDT", "--every", "5m", "--wait"],
            ["fetch-ticker", "binance", "BTC/USDT", "--every", "0.1s"],
            ["submit-order", "binance", "BTC/USDT", "buy", "market", "1", "--every", "5m"],
            ["cancel-order", "binance", "BTC/USDT", "a", "--every", "5m"],
            ["dead", "replay"], ["dead", "purge", "--dry-run"],
            ["dead", "list", "--kind", "fly"], ["delayed", "list", "ftx"], ["delayed", "remove", "binance"],
            ["pause"], ["pause", "binance", "fly"], ["pause", "binance", "fetch_ticker", "--cancel-only"],
            ["resume", "ftx"], ["order", "show", "binance"], ["order", "settle", "binance", "a", "lost"],
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

    @Test("a negative number is refused as what it is", arguments: ["--price", "--max-attempts", "--result-ttl"])
    func negative(_ option: String) async throws {
        let arguments = ["submit-order", "binance", "BTC/USDT", "buy", "limit", "1", "--id", "n", "--price", "5"]
        let program = try Program(
            [Program.binaries + "/producer"] + arguments + [option, "-5"], in: try TemporaryDirectory())
        #expect(try await program.exited() == 64)
        #expect(program.errors.contains("'-5'; expected a"), "\(program.errors)")
    }

    @Test("a negative amount is refused as what it is, and a setting that is none, with all other faults")
    func refusedAtOnce() async throws {
        let order = ["submit-order", "binance", "BTC/USDT", "buy", "limit", "-0.5", "--price", "5"]
        let directory = try TemporaryDirectory()
        let program = try Program([Program.binaries + "/producer"] + order, in: directory)
        #expect(try await program.exited() == 64)
        #expect(program.errors.contains("'-0.5': expected no negative number"), "\(program.errors)")
        let settings = ["FLEET_MAX_WAITNG": "1", "REDIS_URL": "x", "FLEET_MAX_WAITING": "y"]
        let other = try Program(
            [Program.binaries + "/producer", "fetch-ticker", "binance", "BTC/USDT"], environment: settings,
            in: directory)
        #expect(try await other.exited() == 64)
        for name in settings.keys { #expect(other.errors.contains(name), "\(other.errors)") }
    }

    @Test("of an order whose enqueueing was not confirmed it says that it may go out, and under which id")
    func unconfirmed() async throws {
        let stack = try await Stack()
        let isCalled = Atomic(false)
        let proxy = Proxy(to: .unix(stack.redis.withLock { $0 }.socket)) { direction, _, bytes in
            if String(decoding: bytes, as: UTF8.self).contains("fleet_enqueue\r\n") {
                isCalled.store(true, ordering: .relaxed)
            }
            return direction == .request || !isCalled.load(ordering: .relaxed)
        }
        let program = try Program(
            [Program.binaries + "/producer", "submit-order", "binance", "BTC/USDT", "buy", "market", "0.001"],
            environment: ["REDIS_URL": "redis://127.0.0.1:\(proxy.port)"], in: stack.directory)
        #expect(try await program.exited() == 1)
        let entries = try await stack.command(["XRANGE", Stack.key(.binance, "jobs:submit_order"), "-", "+"]).array
        let fields = Stack.pairs(entries?.first?.array?.last?.array ?? [])
        let id = try #require(fields["id"])
        #expect(program.errors.contains("may be enqueued or not") && program.errors.contains("binance \(id),"))
    }

    @Test("a time of more than a minute ago is refused, not taken for now")
    func past() async throws {
        let stack = try await Stack()
        func at(_ time: String) async throws -> Stack.Finished {
            try await stack.producer(["fetch-ticker", "kraken", "BTC/USD", "--at", time])
        }
        for time in ["2025-12-01T08:00:00Z", "1764576000000"] {
            let refused = try await at(time)
            #expect(refused.status == 64 && refused.errors.contains("--at: '2025-12-01T08:00:00.000Z'; expected"))
        }
        #expect(try await at("\(wallClockMs() - 30_000)").status == 0)
    }

    @Test("an order whose id is made up is known by it before its result is waited for")
    func madeUpId() async throws {
        let stack = try await Stack()
        let order = ["submit-order", "kraken", "BTC/USD", "buy", "market", "0.001", "--wait", "--timeout", "1h"]
        let program = try Program(
            [Program.binaries + "/producer"] + order, environment: ["REDIS_URL": stack.redisURL], in: stack.directory)
        let entry = try await eventually("the order is queued") {
            try await stack.command(["XRANGE", "fleet:{kraken}:jobs:submit_order", "-", "+"]).array?.first
        }
        program.signal(SIGTERM)
        #expect(try await program.exited() == 128 + SIGTERM)
        let fields = Stack.pairs(entry.array?.last?.array ?? [])
        #expect(program.errors == "producer: the job's id is \(fields["id"] ?? "")\n")
        // What its caller has chosen is not repeated.
        let named = try await stack.producer(order.dropLast() + ["0.1", "--id", "n-1"])
        #expect(named.status == 2 && !named.errors.contains("the job's id"), "\(named.errors)")
    }

    @Test("--help teaches every command, and each command teaches its options")
    func help() async throws {
        let directory = try TemporaryDirectory()
        for command in [
            [], ["fetch-ticker"], ["submit-order"], ["cancel-order"], ["refresh-cache"], ["enqueue"], ["stats"],
            ["result"], ["delayed"], ["delayed", "list"], ["delayed", "remove"], ["dead"], ["dead", "list"],
            ["dead", "show"], ["dead", "replay"], ["dead", "purge"], ["order"], ["order", "show"],
            ["order", "settle"], ["pause"], ["resume"],
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
        // Whether there is one at the usual address or not: an empty variable is an unset one.
        let unset = try Program(
            [Program.binaries + "/producer", "stats"], environment: ["REDIS_URL": ""], in: server.directory)
        #expect(try await unset.exited() != 64, "\(unset.errors)")
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
            "[1]", good, #"{"exchange":"kraken","kind":"fetch_ticker","symbol":"BTC/USD","max_age_ms":true}"#,
        ]
        let file = try stack.directory.write(lines.joined(separator: "\n") + "\n", to: "jobs.jsonl")
        let finished = try await stack.producer(["enqueue", file])
        #expect(finished.output.contains("3 enqueued, 7 refused"), "\(finished.output)")
        #expect(finished.status == 1)
        let errors = finished.errors.split(separator: "\n")
        #expect(errors.count == 7, "\(finished.errors)")
        for (line, reason) in [
            (3, "JSON"), (4, "ftx"), (5, "fly"), (6, "symbol"), (7, "amount"), (9, "JSON"), (11, "max_age_ms: true"),
        ] {
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

    @Test("enqueue takes the lines of a pipe as they come")
    func enqueuePipe() async throws {
        let stack = try await Stack()
        let pipe = stack.directory.file("pipe")
        #expect(mkfifo(pipe, 0o600) == 0)
        // Open for both: so it has a reader before there is one.
        let end = FileHandle(fileDescriptor: open(pipe, O_RDWR | O_CLOEXEC), closeOnDealloc: true)
        let program = try Program(
            [Program.binaries + "/producer", "enqueue"], environment: ["REDIS_URL": stack.redisURL], input: pipe,
            in: stack.directory)
        let line = #"{"exchange":"binance","kind":"fetch_ticker","symbol":"BTC/USDT"}"#
        for (count, text) in [line + "\n" + line.prefix(20), line.dropFirst(20) + "\n", line].enumerated() {
            if count > 0 {
                try await eventually("\(count) enqueued") {
                    try await stack.command(["XLEN", "fleet:{binance}:jobs:fetch_ticker"]).int == count
                }
            }
            end.write(Data(text.utf8))
        }
        try end.close()
        #expect(try await program.exited() == 0)
        #expect(program.output == "3 enqueued, 0 refused\n", "\(program.errors)")
    }

    @Test("enqueue stops at a lost connection, and says which lines are in doubt and where to go on")
    func enqueueStopped() async throws {
        let stack = try await Stack()
        let proxy = Proxy(to: .unix(stack.redis.withLock { $0 }.socket)) { direction, _, bytes in
            direction == .answer || !String(decoding: bytes, as: UTF8.self).contains("late-")
        }
        let pipe = stack.directory.file("pipe")
        #expect(mkfifo(pipe, 0o600) == 0)
        let end = FileHandle(fileDescriptor: open(pipe, O_RDWR | O_CLOEXEC), closeOnDealloc: true)
        let program = try Program(
            [Program.binaries + "/producer", "enqueue"],
            environment: ["REDIS_URL": "redis://127.0.0.1:\(proxy.port)"], input: pipe, in: stack.directory)
        func lines(_ ids: String...) throws {
            let ticker = #"{"exchange":"kraken","kind":"fetch_ticker","symbol":"BTC/USD","id":""#
            try end.write(contentsOf: Data(ids.map { ticker + $0 + "\"}\n" }.joined().utf8))
        }
        try lines("a", "b", "a")
        try await eventually("two are enqueued") {
            try await stack.command(["XLEN", "fleet:{kraken}:jobs:fetch_ticker"]) == .integer(2)
        }
        try lines("late-1", "late-2", "late-3")
        #expect(try await program.exited(within: .seconds(20)) == 1)
        let account = "2 enqueued, 1 refused; lines 4 to 6 may be enqueued or not; go on from line 7"
        #expect(program.errors.hasSuffix("\nproducer: Redis closed the connection: \(account)\n"), "\(program.errors)")
        #expect(program.errors.split(separator: "\n").count == 2 && program.output.isEmpty)
    }

    /// How a shell gives a program an output that cannot be written; the last one's reader has gone.
    static let lost = [">/dev/full", ">&-", "> >(exit); wait $!"]

    @Test("errors that cannot be written stop nothing", arguments: lost)
    func lostErrors(_ redirection: String) async throws {
        let stack = try await Stack()
        let good = #"{"exchange":"binance","kind":"fetch_ticker","symbol":"BTC/USDT"}"#
        let file = try stack.directory.write("no job\n\(good)\nno job\n\(good)", to: "jobs.jsonl")
        let program = try Program(
            ["bash", "-c", "exec 2\(redirection); exec \(Program.binaries)/producer enqueue <\(file)"],
            environment: ["REDIS_URL": stack.redisURL], in: stack.directory)
        #expect(try await program.exited() == 1)
        #expect(program.output == "2 enqueued, 2 refused\n")
        #expect(try await stack.command(["XLEN", "fleet:{binance}:jobs:fetch_ticker"]).int == 2)
    }

    @Test("output that is lost is said and ends with 1, but not where its reader has gone", arguments: lost)
    func lostOutput(_ redirection: String) async throws {
        let server = try await RedisServer()
        for command in ["stats --json", "--help"] {
            let program = try Program(
                ["bash", "-c", "exec \(redirection); exec \(Program.binaries)/producer \(command)"],
                environment: ["REDIS_URL": server.url], in: server.directory)
            let isFault = !redirection.contains("exit")
            #expect(try await program.exited() == (isFault ? 1 : 0))
            #expect(program.errors.hasPrefix(isFault ? "producer: standard output: " : ""))
            #expect(program.errors.isEmpty != isFault, "\(program.errors)")
        }
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
        let some = try await stack.producer(["stats", "--json"], ["FLEET_EXCHANGES": "kraken,bybit"])
        #expect(try JSONValue(some.output).list.count == 2 * Kind.allCases.count)
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

    @Test("a job whose id is there already is refused and told where it stands; an id whose result is gone is free")
    func duplicates() async throws {
        let stack = try await Stack()
        let arguments = ["fetch-ticker", "kraken", "BTC/USD", "--id", "d-1", "--json"]
        func expectRefused(_ place: String) async throws {
            let again = try await stack.producer(arguments)
            #expect(again.status == 1)
            #expect(try JSONValue(again.output) == JSONValue(#"{"id":"d-1","duplicate":"\#(place)"}"#))
            #expect(again.errors.contains("d-1") && again.errors.contains(place), "\(again.errors)")
        }
        #expect(try await stack.producer(arguments).status == 0)
        try await expectRefused("queued")
        let entry = try await stack.deliver(.kraken, .fetchTicker)
        try await expectRefused("running")
        let keys = Keys(.kraken)
        try await stack.call(
            "fleet_retry", [keys.jobs(.fetchTicker), keys.delayed, keys.marker("d-1"), keys.retries],
            ["workers", "w", entry, "fetch_ticker", "d-1", "600000", "2", "1", "a line", "1"])
        try await expectRefused("delayed")
        try await stack.passTime(.kraken)
        try await stack.promote(.kraken)
        try await expectRefused("queued")
        let second = try await stack.deliver(.kraken, .fetchTicker)
        try await stack.call(
            "fleet_finish", [keys.jobs(.fetchTicker), keys.result("d-1"), keys.marker("d-1")],
            ["workers", "w", second, #"{"status":"ok"}"#, "60", "60"])
        try await expectRefused("finished")
        try await stack.command(["DEL", .text(keys.result("d-1"))])
        let table = try await stack.producer(Array(arguments.dropLast()))
        #expect(table.status == 0 && table.output == "d-1\n", "\(table.errors)")
    }

    @Test("a stream takes no more than FLEET_MAX_WAITING jobs, from commands and from files, and nothing is trimmed")
    func full() async throws {
        let stack = try await Stack()
        let limit = ["FLEET_MAX_WAITING": "2"]
        let ticker = ["fetch-ticker", "binance", "BTC/USDT"]
        try await stack.push(.binance, .fetchTicker, ["symbol": "BTC/USDT"])
        #expect(try await stack.producer(ticker, input: "/dev/null", limit).status == 0)
        let refused = try await stack.producer(ticker, input: "/dev/null", limit)
        #expect(refused.status == 1 && refused.errors.contains("FULL"), "\(refused.errors)")
        let lines = [
            #"{"exchange":"binance","kind":"fetch_ticker","symbol":"BTC/USDT"}"#,
            #"{"exchange":"kraken","kind":"fetch_ticker","symbol":"BTC/USD","id":"f-1"}"#,
            #"{"exchange":"kraken","kind":"fetch_ticker","symbol":"BTC/USD","id":"f-1"}"#,
            #"{"exchange":"kraken","kind":"refresh_cache"}"#,
        ]
        let file = try stack.directory.write(lines.joined(separator: "\n"), to: "jobs.jsonl")
        let many = try await stack.producer(["enqueue", file], input: "/dev/null", limit)
        #expect(many.status == 1 && many.output.contains("2 enqueued, 2 refused"), "\(many.output)\(many.errors)")
        let errors = many.errors.split(separator: "\n")
        #expect(errors.contains { $0.contains("line 1") && $0.contains("FULL") }, "\(errors)")
        #expect(errors.contains { $0.contains("line 3") && $0.contains("queued") }, "\(errors)")
        #expect(try await stack.command(["XLEN", "fleet:{binance}:jobs:fetch_ticker"]).int == 2)
        #expect(try await stack.command(["XLEN", "fleet:{kraken}:jobs:fetch_ticker"]).int == 1)
        for wrong in ["0", "many", "-1"] {
            #expect(try await stack.producer(ticker, ["FLEET_MAX_WAITING": wrong]).status == 64)
        }
    }

    @Test("pause stops all kinds, one kind, or all but cancels, and resume takes it back")
    func pause() async throws {
        let stack = try await Stack()
        let steps: [([String], Set<String>)] = [
            (["pause", "kraken"], ["cancel_order", "submit_order", "fetch_ticker", "refresh_cache"]),
            (["pause", "kraken", "--cancel-only"], ["submit_order", "fetch_ticker", "refresh_cache"]),
            (["resume", "kraken", "fetch_ticker"], ["submit_order", "refresh_cache"]),
            (["pause", "kraken", "cancel_order"], ["submit_order", "refresh_cache", "cancel_order"]),
            (["resume", "kraken"], []),
        ]
        for (arguments, expected) in steps {
            let finished = try await stack.producer(arguments)
            #expect(finished.status == 0, "\(finished.errors)")
            let names = expected.isEmpty ? "nothing" : expected.sorted().joined(separator: ", ")
            #expect(finished.output == "kraken paused: \(names)\n")
            let members = try await stack.command(["SMEMBERS", .text(Keys(.kraken).paused)]).array ?? []
            #expect(Set(members.compactMap(\.text)) == expected)
            let rows = try JSONValue(try await stack.producer(["stats", "--json"]).output).list
            let paused = rows.filter { $0["paused"] == .bool(true) }
            #expect(Set(paused.compactMap { $0["kind"].text }) == expected)
            #expect(paused.allSatisfy { $0["exchange"].text == "kraken" })
        }
    }

    @Test("stats counts delayed and dead jobs by kind, and oldest is the first job that waits, not one that runs")
    func statsByKind() async throws {
        let stack = try await Stack()
        func row(_ kind: Kind) async throws -> JSONValue {
            let rows = try JSONValue(try await stack.producer(["stats", "--json"]).output).list
            return try #require(
                rows.first { $0["exchange"].text == "kraken" && $0["kind"].text == kind.rawValue })
        }
        try await stack.bury("s-1", .submitOrder, reason: "unknown")
        try await stack.bury("s-2", .fetchTicker, reason: "attempts")
        try await stack.bury("s-3", .fetchTicker, reason: "attempts")
        #expect(try await stack.producer(["refresh-cache", "kraken", "--every", "1h", "--in", "1h"]).status == 0)
        #expect(try await row(.submitOrder)["dead"].int == 1)
        #expect(try await row(.fetchTicker)["dead"].int == 2)
        #expect(try await row(.fetchTicker)["delayed"].int == 0)
        #expect(try await row(.refreshCache)["delayed"].int == 1)

        // The first job is a day old and runs; the second is an hour old and waits.
        let key = RedisArgument.text(Keys(.kraken).jobs(.cancelOrder))
        for hours in [24, 1] {
            let id = "\(wallClockMs() - Int64(hours) * 3_600_000)-0"
            try await stack.command(["XADD", key, .text(id), "symbol", "BTC/USD", "order_id", "x"])
        }
        #expect(try await row(.cancelOrder)["oldest_ms"].int ?? 0 >= 86_400_000)
        try await stack.deliver(.kraken, .cancelOrder)
        let both = try await row(.cancelOrder)
        #expect(both["waiting"].int == 1 && both["in_flight"].int == 1 && both["consumers"].int == 1)
        #expect((3_600_000..<86_400_000).contains(both["oldest_ms"].int ?? 0))
        try await stack.deliver(.kraken, .cancelOrder)
        #expect(try await row(.cancelOrder)["oldest_ms"].isNull)

        // More than are counted by kind: the first row has them all.
        let adds = (0..<10_001).map { RedisCommand(["ZADD", .text(Keys(.kraken).delayed), 1, .text("\($0)")]) }
        #expect(await stack.pipeline(adds).allSatisfy { $0.error == nil })
        #expect(try await row(.cancelOrder)["delayed"].int == 10_002)
        #expect(try await row(.refreshCache)["delayed"].isNull)
    }
}
