import Exchanges
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Function library: jobs", .timeLimit(.minutes(1)))
struct FunctionLibraryTests {
    @Test("an older library is replaced, a newer one is left alone, and a lost one is loaded by the next call")
    func versions() async throws {
        let server = try await FunctionServer()
        let other = { (version: Int) in
            "#!lua name=fleet\nredis.register_function('fleet_version', function() return \(version) end)"
        }
        let version = { try await server.redis("FCALL", "fleet_version", "0").int }
        let ours = try #require(try await version())
        try await server.redis("FUNCTION", "LOAD", "REPLACE", other(ours - 1))
        try await FunctionLibrary.load(into: server.client)
        #expect(try await version() == ours)
        #expect(try await server.redis("FCALL", "fleet_journal_read", "1", "none") == .array([]))
        try await server.redis("FUNCTION", "LOAD", "REPLACE", other(ours + 1))
        try await FunctionLibrary.load(into: server.client)
        #expect(try await version() == ours + 1)
        try await server.redis("FUNCTION", "FLUSH")
        #expect(try await server.call("fleet_nonce", ["nonce"], []).text != nil)
        #expect(try await version() == ours)
    }

    @Test("nonces only grow, also past one that is ahead of the clock")
    func nonces() async throws {
        let server = try await FunctionServer()
        let nonce = { try await server.call("fleet_nonce", [server.keys.nonce], []).text ?? "" }
        let (first, second) = (try await nonce(), try await nonce())
        #expect(first.count == 16 && second > first)
        try await server.redis("SET", server.keys.nonce, "8999999999999998")
        #expect(try await nonce() == "8999999999999999")
    }

    // MARK: - The fence

    enum Step: String, CaseIterable { case finish, bury, retry, putAside }

    private func take(_ step: Step, _ entry: String, by consumer: String, on server: FunctionServer) async throws
        -> Int?
    {
        switch step {
        case .finish: try await server.finish(entry, by: consumer, reply: server.keys.reply("r"))
        case .bury: try await server.bury(entry, by: consumer)
        case .retry: try await server.retry(entry, by: consumer)
        case .putAside: try await server.retry(entry, by: consumer, wait: 0, counts: false)
        }
    }

    @Test("who lost a delivery, has finished it, or never had it, changes nothing", arguments: Step.allCases)
    func fence(_ step: Step) async throws {
        let server = try await FunctionServer()
        let entry = try await server.delivered()
        try await server.steal(entry)
        let before = try await server.everything()
        #expect(try await take(step, entry, by: "a", on: server) == 0)
        #expect(try await take(step, entry, by: "stranger", on: server) == 0)
        #expect(try await take(step, "1-1", by: "a", on: server) == 0)
        #expect(try await server.everything() == before)
        #expect(try await take(step, entry, by: "thief", on: server) != 0)
        let after = try await server.everything()
        #expect(try await take(step, entry, by: "thief", on: server) == 0)
        #expect(try await server.everything() == after)
        try await server.redis("FLUSHALL")
        #expect(try await take(step, entry, by: "thief", on: server) == 0)
        #expect(try await server.redis("DBSIZE").int == 0)
    }

    @Test("a heartbeat renews what is the consumer's own, counts the others, and steals nothing back")
    func beat() async throws {
        let server = try await FunctionServer()
        let (mine, lost) = (try await server.delivered(), try await server.delivered())
        let stream = server.keys.jobs(.fetchTicker)
        try await server.steal(lost)
        for entry in [mine, lost] {
            let owner = entry == mine ? "a" : "thief"
            try await server.redis("XCLAIM", stream, Keys.group, owner, "0", entry, "IDLE", "7200000", "JUSTID")
        }
        let beat = try await server.call(
            "fleet_beat", [stream], [.text(Keys.group), "a", .text(mine), .text(lost), "1-1"])
        #expect(beat.int == 2)
        let claimed = try await server.claim(lease: FunctionServer.hour).entries
        #expect(claimed.map(\.entry) == [lost])
        #expect(try await server.redis("XPENDING", stream, Keys.group, mine, mine, "1").array?.first?.texts[1] == "a")
        // A lease renewed is not a delivery.
        #expect(try await server.claim().entries.first { $0.entry == mine }?.deliveries == 2)
    }

    @Test("claim goes on from its cursor, counts deliveries, and forgets what was deleted")
    func claim() async throws {
        let server = try await FunctionServer()
        var entries: [String] = []
        for _ in 0..<5 { entries.append(try await server.delivered()) }
        #expect(try await server.claim(lease: FunctionServer.hour).entries.isEmpty)
        let first = try await server.claim(most: 2)
        #expect(first.entries.map(\.entry) == Array(entries[..<2]) && first.cursor == entries[2])
        #expect(first.entries.map(\.deliveries) == [2, 2])
        #expect(field("symbol", of: first.entries[0].fields) == "X")
        try await server.redis("XDEL", server.keys.jobs(.fetchTicker), entries[3])
        let second = try await server.claim(cursor: first.cursor)
        #expect(second.entries.map(\.entry) == [entries[2], entries[4]] && second.cursor == "0-0")
        #expect(try await server.claim(by: "c").entries.map(\.deliveries) == [3, 3, 3, 3])
    }

    @Test("retire removes the consumers that are gone, never one with pending jobs")
    func retire() async throws {
        let server = try await FunctionServer()
        let stream = server.keys.jobs(.fetchTicker)
        let retire = { (name: String, silence: Int) in
            try await server.call("fleet_retire", [stream], [.text(Keys.group), .text(name), .int(silence)]).int
        }
        let entry = try await server.delivered()
        for name in ["b", "c", "d"] { try await server.redis("XGROUP", "CREATECONSUMER", stream, Keys.group, name) }
        #expect(try await retire("a", 0) == 0)
        #expect(try await retire("", FunctionServer.hour) == 0)
        #expect(try await retire("b", 0) == 1)
        #expect(try await retire("", 0) == 2)
        #expect(try await server.redis("XINFO", "CONSUMERS", stream, Keys.group).array?.count == 1)
        #expect(try await server.finish(entry) == 1)
        #expect(try await retire("a", 0) == 1)
    }

    // MARK: - Enqueuing

    @Test("an id is refused wherever its job is, and accepted again when nothing of it is left")
    func duplicates() async throws {
        let server = try await FunctionServer()
        let entry = try await server.enqueue("x")[1]
        #expect(try await server.enqueue("x") == ["duplicate", "queued"])
        #expect(try await server.enqueue("x", kind: .refreshCache) == ["duplicate", "queued"])
        #expect(try await server.read() == [entry])
        #expect(try await server.enqueue("x") == ["duplicate", "running"])
        _ = try #require(try await server.retry(entry, id: "x"))
        #expect(try await server.enqueue("x") == ["duplicate", "delayed"])
        try await ripen(server)
        #expect(try await server.promote().first == 1)
        #expect(try await server.enqueue("x") == ["duplicate", "queued"])
        let again = try #require(try await server.read().first)
        #expect(try await server.enqueue("x") == ["duplicate", "running"])
        #expect(try await server.finish(again, id: "x") == 1)
        #expect(try await server.enqueue("x") == ["duplicate", "finished"])
        try await server.redis("DEL", server.keys.result("x"))
        #expect(try await server.enqueue("x")[0] == "queued")
        let last = try #require(try await server.read().first)
        #expect(try await server.finish(last, id: "x", ttl: 0) == 1)
        #expect(try await server.enqueue("x", wait: FunctionServer.hour) == ["delayed", "x"])
        #expect(try await server.enqueue("x") == ["duplicate", "delayed"])
        #expect(try await server.enqueue("y")[0] == "queued")
    }

    @Test("a job that somebody deleted no longer stands in the way of its id")
    func deleted() async throws {
        let server = try await FunctionServer()
        try await server.redis("XDEL", server.keys.jobs(.fetchTicker), try await server.enqueue("x")[1])
        let entry = try await server.enqueue("x")[1]
        #expect(try await server.read() == [entry])
        try await server.redis("XDEL", server.keys.jobs(.fetchTicker), entry)
        #expect(try await server.enqueue("x") == ["duplicate", "running"])
        #expect(try await server.retry(entry, id: "x") == 0)
        #expect(try await server.enqueue("x")[0] == "queued")
    }

    @Test("the marker of an id is only moved and removed by the job it stands for")
    func foreignMarker() async throws {
        let server = try await FunctionServer()
        let entries = [try await server.delivered(["id", "x"]), try await server.delivered(["id", "x"])]
        #expect(try await server.enqueue("x")[0] == "queued")
        #expect(try await server.finish(entries[0], id: "x", ttl: 0) == 1)
        #expect(try await server.enqueue("x") == ["duplicate", "queued"])
        _ = try #require(try await server.retry(entries[1], id: "x"))
        #expect(try await server.enqueue("x") == ["duplicate", "queued"])
    }

    @Test("what no job of ours is in the delayed set is passed over", arguments: [#""0""#, "null", "{}"])
    func foreignDelayed(_ every: String) async throws {
        let server = try await FunctionServer()
        let foreign = #"["fetch_ticker","x",\#(every),["symbol","BTC/USDT"]]"#
        try await server.redis("ZADD", server.keys.delayed, "1", foreign)
        for (due, every) in [(0, -5), (-1, 0), (10_000_000_000_000, 0)] {
            let error = try #require(
                await #expect(throws: RedisError.self) { try await server.enqueue("n", due: due, every: every) })
            #expect(error.code == .server("DUE") && error.message.contains("expected a whole number"), "\(error)")
        }
        _ = try await server.enqueue("good", wait: 1)
        try await eventually("the good one is moved") { try await server.promote().first == 1 }
        #expect(try await server.redis("XLEN", server.keys.jobs(.fetchTicker)).int == 1)
        #expect(try await server.redis("ZRANGE", server.keys.delayed, "0", "-1").texts == [foreign])
    }

    @Test(
        "an order that may exist is only replayed where its journal says what became of it",
        arguments: ["unknown", "poison", "redis"])
    func replayWithoutJournal(_ reason: String) async throws {
        let (server, keys) = (try await FunctionServer(), Keys(.binance))
        let entry = try #require(
            try await server.redis(
                "XADD", keys.dead, "*", "symbol", "BTC/USDT", "id", "o", "fleet_kind", "submit_order", "fleet_reason",
                reason, "fleet_enqueued_ms", "1"
            ).text)
        let names = [keys.dead, keys.jobs(.submitOrder), keys.marker("o"), keys.result("o"), keys.order("o")]
        let refusal = await #expect(throws: RedisError.self) {
            _ = try await server.call("fleet_replay", names, [.text(entry)])
        }
        #expect(refusal?.code == .server("DUPLICATE"))
        #expect(try await server.redis("XLEN", keys.dead).int == 1)
        let ticker = try #require(
            try await server.redis("XADD", keys.dead, "*", "fleet_kind", "fetch_ticker", "fleet_reason", reason).text)
        let tickers = [keys.dead, keys.jobs(.fetchTicker), keys.marker("t"), keys.result("t"), keys.order("t")]
        #expect(try await server.call("fleet_replay", tickers, [.text(ticker)]).text?.isEmpty == false)
        try await server.redis("HSET", keys.order("o"), "state", "unknown", "outcome", "{}")
        #expect(try await server.call("fleet_replay", names, [.text(entry)]).text?.isEmpty == false)
    }

    @Test("an order that failed has all its sends again when it is replayed")
    func replayedSends() async throws {
        let (server, keys) = (try await FunctionServer(), Keys(.binance))
        let entry = try #require(
            try await server.redis(
                "XADD", keys.dead, "*", "id", "o", "fleet_kind", "submit_order", "fleet_reason", "attempts"
            ).text)
        try await server.redis("HSET", keys.order("o"), "state", "failed", "sends", "5", "outcome", "{}")
        let names = [keys.dead, keys.jobs(.submitOrder), keys.marker("o"), keys.result("o"), keys.order("o")]
        #expect(try await server.call("fleet_replay", names, [.text(entry)]).text?.isEmpty == false)
        let journal = try await server.redis("HMGET", keys.order("o"), "state", "sends", "outcome")
        #expect(journal.array?.map(\.text) == ["released", "0", nil])
    }

    @Test("a full stream refuses with an error and keeps what it has; delayed jobs do not count")
    func full() async throws {
        let server = try await FunctionServer()
        for _ in 0..<2 { _ = try await server.enqueue(most: 2) }
        let before = try await server.everything()
        let refusal = await #expect(throws: RedisError.self) { _ = try await server.enqueue("x", most: 2) }
        #expect(refusal?.code == .server("FULL"))
        #expect(try await server.everything() == before)
        #expect(try await server.enqueue("x", most: 2, wait: 1)[0] == "delayed")
    }

    @Test(
        "a delayed job needs an id, and fields come in pairs, at most a thousand",
        arguments: [
            ("", FunctionServer.hour, 2), ("x", 0, 3), ("x", FunctionServer.hour, 3), ("", 0, 1),
            ("x", FunctionServer.hour, 2002), ("x", 0, 9000),
        ])
    func refusals(_ id: String, _ wait: Int, _ count: Int) async throws {
        let server = try await FunctionServer()
        let before = try await server.everything()
        let refusal = await #expect(throws: RedisError.self) {
            _ = try await server.enqueue(id, wait: wait, (0..<count).map { .int($0) })
        }
        #expect(refusal?.code == .server(count == 2 ? "ID" : "FIELDS"))
        #expect(try await server.everything() == before)
    }

    @Test("a job without fields is a job: refresh_cache needs none, now, later and again")
    func noFields() async throws {
        let server = try await FunctionServer()
        #expect(try await server.enqueue("", [])[0] == "queued")
        #expect(try await server.enqueue("once", due: 1, [])[0] == "delayed")
        #expect(try await server.enqueue("often", every: FunctionServer.hour, [])[0] == "delayed")
        #expect(try await server.promote().first == 2)
        #expect(try await server.redis("XLEN", server.keys.jobs(.fetchTicker)).int == 3)
    }

    // MARK: - Finishing

    @Test("finish answers, stores for its time and leaves nothing else behind")
    func finish() async throws {
        let server = try await FunctionServer()
        let baseline = try #require(try await server.redis("DBSIZE").int)
        let (keys, reply) = (server.keys, server.keys.reply("r"))
        _ = try await server.enqueue("x")
        let entry = try #require(try await server.read().first)
        #expect(try await server.finish(entry, id: "x", ttl: 5, reply: reply) == 1)
        #expect(try await server.redis("GET", keys.result("x")).text == "{}")
        let life = try #require(try await server.redis("PTTL", keys.result("x")).int)
        #expect((1...5000).contains(life))
        #expect(try await server.redis("LRANGE", reply, "0", "-1").texts == ["{}"])
        #expect((1...60).contains(try #require(try await server.redis("TTL", reply).int)))
        try await server.redis("DEL", reply)
        try await eventually("the result's time is over") {
            try await server.redis("EXISTS", keys.result("x")).int == 0
        }
        #expect(try await server.redis("DBSIZE").int == baseline)
        #expect(try await server.redis("XLEN", keys.jobs(.fetchTicker)).int == 0)
    }

    @Test("a reply key of another type is its owner's fault and does not keep the job")
    func wrongReply() async throws {
        let server = try await FunctionServer()
        try await server.redis("SET", "text", "x")
        let entry = try await server.delivered()
        #expect(try await server.finish(entry, reply: "text") == 1)
        #expect(try await server.redis("GET", "text").text == "x")
        #expect(try await server.redis("GET", server.keys.result(entry)).text == "{}")
    }

    @Test("a Redis without memory is asked for nothing but new work and a person's word in vain")
    func allowedWithoutMemory() async throws {
        let list = try await FunctionServer(streams: false).redis("FUNCTION", "LIST")
        let functions = (list.array?.first?.array?.last?.array ?? []).map { ($0.array?[1].text, $0.array?[5].texts) }
        let refused = functions.filter { $0.1 == [] }.compactMap(\.0).sorted()
        let news = ["fleet_cache_put", "fleet_enqueue", "fleet_journal_begin", "fleet_journal_settle", "fleet_replay"]
        #expect(refused == news)
        #expect(functions.count > 20)
    }

    @Test("a Redis without memory refuses new jobs and sends, and lets running ones end")
    func outOfMemory() async throws {
        let server = try await FunctionServer(["--maxmemory-policy", "noeviction"])
        var entries: [String] = []
        for _ in 0..<4 { entries.append(try await server.delivered()) }
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        try await server.redis("CONFIG", "SET", "maxmemory", "1")
        for refused in ["enqueue", "begin"] {
            let refusal = await #expect(throws: RedisError.self) {
                switch refused {
                case "enqueue": _ = try await server.enqueue("x")
                default: _ = try await begin("a", server.keys.order("p"), on: server)
                }
            }
            #expect(refusal?.code == .server("OOM"), "\(refused)")
        }
        #expect(try await server.finish(entries[0]) == 1)
        #expect(try await server.bury(entries[1]) == 1)
        #expect(try await server.retry(entries[2]) != 0)
        #expect(try await server.retry(entries[3], wait: 0, counts: false) != 0)
        #expect(try await server.claim().entries.isEmpty)
        #expect(try await server.promote().first == 0)
        #expect(try await server.call("fleet_journal_note", [journal], ["acknowledged", "a", "77"]).int == 1)
        #expect(try await server.call("fleet_journal_read", [journal], []).texts[3] == "77")
        #expect(try await server.call("fleet_journal_end", [journal], ["accepted", "{}", 60]).text == "{}")
    }

    // MARK: - Retries, delays, dead letters

    @Test("retries beyond the budget are spread, jobs put aside are not")
    func budget() async throws {
        let server = try await FunctionServer()
        for _ in 0..<220 { _ = try await server.enqueue() }
        let entries = try await server.read(most: 220)
        try #require(entries.count == 220)
        let start = try await now(server)
        var dues: [Int] = []
        for entry in entries[..<215] { dues.append(try #require(try await server.retry(entry, wait: 0))) }
        let end = try await now(server)
        #expect(dues[..<200].allSatisfy { (start...end).contains($0) })
        // The last 15 are to be 50 ms apart, beginning with now.
        let delayed = try #require(try await server.redis("ZCARD", server.keys.delayed).int)
        #expect(delayed > 0 || end - start > 500)
        #expect(dues[214] >= start + 14 * 50)
        #expect((1...end - start + 12_000).contains(try await server.redis("PTTL", server.keys.retries).int ?? 0))
        for entry in entries[215...] {
            let due = try #require(try await server.retry(entry, wait: 0, counts: false))
            #expect(due <= (try await now(server)))
        }
        #expect(try await server.redis("ZCARD", server.keys.delayed).int == delayed)
        #expect(try await server.redis("XLEN", server.keys.jobs(.fetchTicker)).int == 220 - delayed)
    }

    @Test("a retry tells its attempt, its age and what went wrong; of a long story the end is kept")
    func history() async throws {
        let server = try await FunctionServer()
        var entry = try await server.delivered(["symbol", "X", "fleet_attempt", "9", "id", ""])
        for (attempt, line) in [(2, "first"), (3, ""), (4, String(repeating: "long ", count: 900))] {
            #expect(try await server.retry(entry, id: "x", wait: 0, attempt: attempt, line: line) != 0)
            entry = try #require(try await server.read().first)
            let fields = try await server.entries(server.keys.jobs(.fetchTicker))[0]
            #expect(field("fleet_attempt", of: fields) == "\(attempt)" && field("id", of: fields) == "x")
            #expect(field("fleet_enqueued_ms", of: fields) == "77" && fields.count == 10)
            if attempt < 4 { #expect(field("fleet_history", of: fields) == "first") }
        }
        #expect(try await server.bury(entry, id: "x", line: "last") == 1)
        let fields = try await server.entries(server.keys.dead)[0]
        let story = try #require(field("fleet_history", of: fields))
        #expect(story.utf8.count == 4000 && story.hasSuffix("long \nlast"))
        #expect(field("fleet_reason", of: fields) == "attempts" && field("fleet_worker", of: fields) == "a")
        #expect(field("fleet_kind", of: fields) == "fetch_ticker" && field("symbol", of: fields) == "X")
    }

    /// Fields that may not be changed on the way: any bytes in name and value, and as many as a job may have.
    static let payloads: [[(String, [UInt8])]] = [
        [("garbage", Array(0...255)), ("\u{0}\"\\\n", [0xff, 0xfe, 0]), ("empty", []), ("null", Array("null".utf8))],
        (0..<1000).map { ("field\($0)", [UInt8($0 % 256), UInt8($0 / 256)]) },
    ]

    @Test("any bytes and a thousand fields come through retry, promotion, the dead letters and back", arguments: 0...1)
    func bytes(_ number: Int) async throws {
        let server = try await FunctionServer()
        let own = Self.payloads[number].flatMap { [RedisArgument.text($0.0), .bytes($0.1)] }
        let expected = Self.payloads[number].flatMap { [RedisValue.bytes(Array($0.0.utf8)), .bytes($0.1)] }
        let (jobs, dead) = (server.keys.jobs(.fetchTicker), server.keys.dead)
        #expect(try await server.enqueue("x", due: 1, own)[0] == "delayed")
        for _ in 0..<2 {
            #expect(try await server.promote().first == 1)
            #expect(try await server.entries(jobs).map { Array($0.prefix(expected.count)) } == [expected])
            let entry = try #require(try await server.read().first)
            #expect(try await server.retry(entry, id: "x", wait: FunctionServer.hour, line: "why") != 0)
            try await ripen(server)
        }
        #expect(try await server.promote().first == 1)
        var entry = try #require(try await server.read().first)
        #expect(try await server.retry(entry, id: "x", wait: 0) != 0)
        #expect(try await server.entries(jobs).map { Array($0.prefix(expected.count)) } == [expected])
        entry = try #require(try await server.read().first)
        #expect(try await server.bury(entry, id: "x", line: "why") == 1)
        #expect(try await server.entries(dead).map { Array($0.prefix(expected.count)) } == [expected])
        let dying = try #require(try await server.redis("XRANGE", dead, "-", "+").array?.first?.array?.first?.text)
        let replay = try await server.call(
            "fleet_replay", [dead, jobs, server.keys.marker("x"), server.keys.result("x")], [.text(dying)])
        entry = try #require(try await server.read().first)
        #expect(replay.text == entry)
        let fields = try await server.entries(jobs)[0]
        #expect(Array(fields.prefix(expected.count)) == expected && fields.count == expected.count + 6)
        #expect(field("fleet_attempt", of: fields) == nil && field("fleet_enqueued_ms", of: fields) == "77")
        #expect(field("fleet_history", of: fields)?.contains("why\nwhy\nwhy\nattempts; replayed at ") == true)
        #expect(try await server.redis("XLEN", dead).int == 0)
        #expect(try await server.redis("EXISTS", server.keys.result("x")).int == 0)
        #expect(try await server.finish(entry, id: "x", ttl: 0) == 1)
        try await server.redis("DEL", server.keys.retries)
        // The streams, that of the dead letters too: an empty one stays.
        #expect(try await server.redis("DBSIZE").int == Kind.allCases.count + 1)
    }

    @Test("what is buried is done and answered, and is not replayed while its id is at work again")
    func replay() async throws {
        let server = try await FunctionServer()
        let (jobs, dead) = (server.keys.jobs(.fetchTicker), server.keys.dead)
        _ = try await server.enqueue("x")
        let first = try #require(try await server.read().first)
        #expect(try await server.bury(first, id: "x") == 1)
        #expect(try await server.enqueue("x") == ["duplicate", "finished"])
        try await server.redis("DEL", server.keys.result("x"))
        let dying = try #require(try await server.redis("XRANGE", dead, "-", "+").array?.first?.array?.first?.text)
        let replay = {
            try await server.call(
                "fleet_replay", [dead, jobs, server.keys.marker("x"), server.keys.result("x")], [.text(dying)])
        }
        for wait in [0, FunctionServer.hour] {
            _ = try await server.enqueue("x", wait: wait)
            let before = try await server.everything()
            let refusal = await #expect(throws: RedisError.self) { _ = try await replay() }
            #expect(refusal?.code == .server("DUPLICATE"))
            #expect(try await server.everything() == before)
            if wait == 0 {
                let entry = try #require(try await server.read().first)
                #expect(try await server.finish(entry, id: "x", ttl: 0) == 1)
            }
        }
        #expect(try await unschedule("x", on: server) == 1)
        // It came again under its id and went well: nobody may take that result away.
        let result = server.keys.result("x")
        try await server.redis("SET", result, #"{"status":"ok"}"#)
        let refusal = await #expect(throws: RedisError.self) { _ = try await replay() }
        #expect(refusal?.code == .server("DUPLICATE"))
        try await server.redis("SET", result, #"{"status":"failed"}"#)
        #expect(try await replay().text?.isEmpty == false)
        #expect(try await server.redis("EXISTS", result).int == 0)
        #expect(try await replay().text == "")
        #expect(try await server.enqueue("x") == ["duplicate", "queued"])
    }

    @Test("a schedule comes on its grid, once for all the times that were missed or in which its last job is there")
    func schedule() async throws {
        let server = try await FunctionServer()
        let (every, delayed) = (100_000_000_000, server.keys.delayed)
        #expect(try await server.enqueue("s", every: every) == ["delayed", "s"])
        #expect(try await server.enqueue("s", every: every) == ["duplicate", "delayed"])
        #expect(try await server.redis("PTTL", server.keys.marker("s")).int == -1)
        let stream = server.keys.jobs(.fetchTicker)
        for isLastThere in [false, true, false] {
            if !isLastThere { try await server.redis("XTRIM", stream, "MAXLEN", "0") }
            let before = try await server.redis("XRANGE", stream, "-", "+")
            let member = { try await server.redis("ZRANGE", delayed, "0", "-1").texts.first ?? "" }
            try await server.redis("ZADD", delayed, "7", member())
            let reply = try await server.promote()
            let score = try #require(
                try await server.redis("ZSCORE", delayed, member()).text.flatMap(Double.init).map { Int($0) })
            let time = try await now(server)
            #expect(score % every == 7 && score > time && score <= time + every)
            #expect(reply[0] == 1 && abs(reply[1] - (score - time)) < 10_000)
            #expect(try await server.promote().first == 0)
            let jobs = try await server.entries(stream)
            #expect(jobs.count == 1 && jobs.allSatisfy { field("id", of: $0) == nil })
            #expect((try await server.redis("XRANGE", stream, "-", "+") == before) == isLastThere)
        }
        // What somebody else put there is not in the way.
        try await server.redis("ZADD", delayed, "0", "not json")
        try await server.redis("ZADD", delayed, "0", "7")
        #expect(try await unschedule("other", on: server) == 0)
        try await server.redis("ZREM", delayed, "not json", "7")
        #expect(try await unschedule("s", on: server) == 1)
        #expect(try await server.promote() == [0, -1])
        #expect(try await server.redis("EXISTS", server.keys.marker("s"), delayed).int == 0)
        #expect(try await server.redis("KEYS", server.keys.markerPrefix + "*").texts.isEmpty)
    }

    @Test("a schedule whose last job nobody has done for an hour adds another")
    func lateSchedule() async throws {
        let (server, stream) = (try await FunctionServer(), Keys(.binance).jobs(.fetchTicker))
        for (count, id) in [(2, "1-0"), (3, "*")] {
            let last = try #require(try await server.redis("XADD", stream, id, "symbol", "BTC/USDT").text)
            try await server.redis("SET", server.keys.marker(last), stream + " " + last)
            let member = #"["fetch_ticker","s",\#(FunctionServer.hour),["symbol","BTC/USDT"],"\#(last)"]"#
            try await server.redis("ZADD", server.keys.delayed, "7", member)
            #expect(try await server.promote().first == 1)
            #expect(try await server.redis("XLEN", stream).int == count)
        }
    }

    @Test("promotion takes what is due, oldest first, no more than asked for")
    func promotion() async throws {
        let server = try await FunctionServer()
        for id in ["a", "b", "c", "later"] { _ = try await server.enqueue(id, wait: FunctionServer.hour) }
        for member in try await server.redis("ZRANGE", server.keys.delayed, "0", "-1").texts {
            guard let place = ["c", "a", "b"].firstIndex(where: { member.contains("\"\($0)\"") }) else { continue }
            try await server.redis("ZADD", server.keys.delayed, "\(place)", member)
        }
        #expect(try await server.promote(most: 2) == [2, 0])
        let reply = try await server.promote(most: 2)
        #expect(reply[0] == 1 && reply[1] > FunctionServer.hour - 60_000)
        let jobs = try await server.entries(server.keys.jobs(.fetchTicker))
        #expect(jobs.map { field("id", of: $0) } == ["c", "a", "b"])
        #expect(try await server.redis("ZCARD", server.keys.delayed).int == 1)
    }

    @Test("a delayed job that cannot be promoted stays and is not in the way of the others")
    func blocked() async throws {
        let server = try await FunctionServer()
        let (delayed, wrong) = (server.keys.delayed, server.keys.jobs(.refreshCache))
        try await server.redis("DEL", wrong)
        try await server.redis("SET", wrong, "not a stream")
        _ = try await server.enqueue("wrong", kind: .refreshCache, due: 1)
        let garbage = [
            "not JSON", "5", "[]", #"["fetch_ticker","x",0,{}]"#, #"["fetch_ticker","x",0,["odd"]]"#,
            #"["unknown","x",0,["a","b"]]"#,
            "[\"fetch_ticker\",\"x\",0,[\(Array(repeating: "\"a\"", count: 20_000).joined(separator: ","))]]",
        ]
        for member in garbage { try await server.redis("ZADD", delayed, "1", member) }
        _ = try await server.enqueue("right", due: 1)
        try await ripen(server)
        #expect(try await server.promote().first == 1)
        #expect(try await server.entries(server.keys.jobs(.fetchTicker)).map { field("id", of: $0) } == ["right"])
        #expect(try await server.redis("ZCARD", delayed).int == garbage.count + 1)
        #expect(try await server.redis("ZCOUNT", delayed, "-inf", "1").int == 0, "others come before them next time")
        // Once the stream is one again, the job comes.
        try await server.redis("DEL", wrong)
        try await ripen(server)
        #expect(try await server.promote().first == 1)
        #expect(try await server.entries(wrong).map { field("id", of: $0) } == ["wrong"])
    }
}

/// Makes everything delayed due.
private func ripen(_ server: FunctionServer) async throws {
    for member in try await server.redis("ZRANGE", server.keys.delayed, "0", "-1").array ?? [] {
        guard case .bytes(let bytes) = member else { continue }
        _ = try await server.client.send(["ZADD", .text(server.keys.delayed), 1, .bytes(bytes)])
    }
}

private func unschedule(_ id: String, on server: FunctionServer) async throws -> Int? {
    try await server.call("fleet_unschedule", [server.keys.delayed, server.keys.marker(id)], [.text(id)]).int
}

/// Redis' clock in unix milliseconds.
private func now(_ server: FunctionServer) async throws -> Int {
    let time = try await server.redis("TIME").texts.compactMap(Int.init)
    return time[0] * 1000 + time[1] / 1000
}

private func begin(
    _ owner: String, _ journal: String, on server: FunctionServer, for time: Int = FunctionServer.hour
) async throws -> [String] {
    try await server.call(
        "fleet_journal_begin", [journal, server.keys.paused], [.text(owner), .int(time), 600, "submit_order"]
    ).texts
}

@Suite("Function library: budgets", .timeLimit(.minutes(1)))
struct BudgetTests {
    @Test("orders leave of Kraken's counter of a pair what a cancel costs", arguments: Kraken.Tier.allCases)
    func roomForCancel(_ tier: Kraken.Tier) async throws {
        let server = try await FunctionServer(streams: false)
        let api = Kraken(baseURL: "", credentials: nil, tier: tier)
        let order = OrderRequest(
            symbol: "BTC/USD", side: .buy, type: .market, amount: "1", price: nil, timeInForce: .gtc)
        func take(_ call: Call, _ share: Limiter.Share, most: Int) async throws -> Int? {
            let charges = api.charges(for: call)
            let amounts = charges.flatMap { [$0.cost, $0.burst, $0.perSecond].map { RedisArgument.text("\($0)") } }
            return try await server.call(
                "fleet_limit_take", ["gate"] + charges.map(\.name), [.int(most), .text("\(share.rawValue)")] + amounts
            ).array?.first?.int
        }
        #expect(try await take(.submit(order, reference()), .order, most: 1000) ?? 0 > 40)
        #expect(try await take(.submit(order, reference()), .order, most: 1000) ?? 9 < 9, "what came back meanwhile")
        #expect(try await take(.cancel(reference()), .cancel, most: 1) == 1)
    }

    @Test("what a cancel costs at Kraken depends on the order's age")
    func cancelCosts() {
        let api = Kraken(baseURL: "", credentials: nil, tier: .starter)
        let costs = [nil, 0, 4, 5, 12, 30, 60, 200, 4000].map { (seconds: Int?) in
            var order = reference()
            order.age = seconds.map { .seconds($0) }
            return api.charges(for: .cancel(order)).first?.cost
        }
        #expect(costs == [8, 8, 8, 6, 5, 4, 2, 1, 1])
    }

    @Test("Binance's limits of orders are those of its market list, kept and used")
    func orderLimits() throws {
        let api = Binance(baseURL: "", credentials: nil)
        let order = OrderRequest(
            symbol: "BTC/USDT", side: .buy, type: .market, amount: "1", price: nil, timeInForce: .gtc)
        for (short, day) in [(nil, nil), (50, 160_000), (100, 200_000), (1000, 10_000)] as [(Double?, Double?)] {
            var reference = reference()
            (reference.instrument.ordersPer10s, reference.instrument.ordersPerDay) = (short, day)
            for (name, seconds, limit) in [("orders-10s", 10.0, short ?? 50), ("orders-day", 86_400, day ?? 160_000)] {
                let charge = try #require(api.charges(for: .submit(order, reference)).first { $0.name == name })
                #expect((0.97...0.999).contains((charge.burst + seconds * charge.perSecond) / limit), "\(charge)")
            }
        }
    }

    @Test("a gate stops all who stand behind it, and when it opens one goes first")
    func gates() async throws {
        let server = try await FunctionServer(streams: false)
        /// Behind the first gate, with `more` behind others too.
        func take(_ more: [String] = []) async throws -> [Int] {
            let reply = try await server.call(
                "fleet_limit_take", ["gate", "budget"] + more, [5, "1", "1", "100", "1"])
            return reply.array?.compactMap(\.int) ?? []
        }
        #expect(try await take(["other"]) == [5, 0, 0])
        #expect(try await server.call("fleet_limit_close", ["other"], [3_600_000]).int ?? 0 > 3_599_000)
        #expect(try await take()[0] == 5, "the other gate is not looked at")
        let closed = try await take(["other"])
        #expect(closed[0] == 0 && (3_500_000...3_600_000).contains(closed[1]) && closed[2] == 1, "\(closed)")
        // One that closes for less keeps it as it is.
        #expect(try await server.call("fleet_limit_close", ["other"], [5]).int ?? 0 > 3_500_000)
        // As it is when its time has just come.
        try await server.redis("SET", "gate", "1", "PX", "60000")
        #expect(try await take() == [1, 0, 0])
        let next = try await take()
        #expect(next[0] == 0 && (1...300).contains(next[1]) && next[2] == 1, "\(next)")
    }

    @Test("a ticker is newer when the exchange made it later, and where it does not say, when it came later")
    func newerTickers() async throws {
        let server = try await FunctionServer(streams: false)
        func put(_ key: String, _ receivedMs: Int, _ json: String) async throws -> Int? {
            try await server.call("fleet_cache_put", [key], [60, .int(receivedMs), .text(json)]).int
        }
        #expect(try await put("a", 1000, #"{"exchange_ms":900}"#) == 1)
        #expect(try await put("a", 2000, #"{"exchange_ms":800}"#) == 0, "it was long on its way")
        #expect(try await server.redis("GET", "a").text == #"1000 {"exchange_ms":900}"#)
        #expect(try await put("a", 1100, #"{"exchange_ms":900}"#) == 1)
        #expect(try await put("b", 1000, "{}") == 1)
        #expect(try await put("b", 999, "{}") == 0)
        #expect(try await put("b", 1001, "{}") == 1)
    }

    @Test("who wants a few tickers waits while others are fetched, but not for what a person set")
    func fetchClaims() async throws {
        let server = try await FunctionServer(streams: false)
        func claim(_ who: RedisArgument, _ claims: [String], few: Int? = 1000) async throws -> [Int]? {
            let arguments: [RedisArgument] = [who, .int(FunctionServer.hour), 2] + (few.map { [.int($0)] } ?? [])
            let keys = claims + (few == nil ? [] : ["fetching"])
            return try await server.call("fleet_fetch_claim", keys, arguments).array?.compactMap(\.int)
        }
        #expect(try await claim("a", ["x", "y", "z"]) == [1, 1, 0], "two at most")
        #expect(try await claim("a", ["x"]) == [0], "also who began that fetch")
        #expect(try await claim("b", ["x", "z"], few: nil) == [0, 1], "who wants many waits only for what is claimed")
        try await server.redis("SET", "fetching", "1")
        #expect(try await claim("b", ["z"]) == [1])
        try await server.redis("SET", "fetching", "1", "PX", "60000")
        #expect(try await claim("b", ["z"]) == [1])
    }

    @Test("what the exchange may have counted in the window before is not taken for this one's")
    func correction() async throws {
        let server = try await FunctionServer(streams: false)
        // One that began five seconds ago: the first multiple of itself.
        let window = Int(wallClockMs()) - 5000
        func correct(_ age: Int) async throws -> Int? {
            try await server.call("fleet_limit_correct", ["budget"], ["5900", .int(window), "94", .int(age)]).int
        }
        #expect(try await correct(FunctionServer.hour) == 0)
        #expect(try await server.redis("EXISTS", "budget").int == 0)
        #expect(try await correct(1000) == 1)
    }

    @Test("no use that an exchange tells keeps a budget closed for longer than its window")
    func absurdUse() async throws {
        let server = try await FunctionServer(streams: false)
        for rolls in [false, true] {
            let arguments: [RedisArgument] = ["60000000", .int(FunctionServer.hour), "94", "0", rolls ? "1" : "0"]
            #expect(try await server.call("fleet_limit_correct", ["budget"], arguments) == .integer(1))
            let most = (rolls ? 3 : 1) * FunctionServer.hour + 2000
            #expect((1...most) ~= (try await server.redis("PTTL", "budget").int ?? 0))
            try await server.redis("DEL", "budget")
        }
    }

    @Test("a gate that says no time is closed for as long as it is there")
    func wordyGate() async throws {
        let server = try await FunctionServer(streams: false)
        try await server.redis("SET", "gate", "closed", "PX", "60000")
        let wait = try await server.call("fleet_limit_take", ["gate", "budget"], [1, "1", "1", "1", "1"])
        let values = wait.array?.map(\.int) ?? []
        #expect(values.count == 3 && values[0] == 0 && 50_000...60_000 ~= values[1] ?? 0 && values[2] == 1, "\(wait)")
    }

    @Test("what was written before Redis' clock was set back does not last longer for that")
    func clockSetBack() async throws {
        let server = try await FunctionServer(streams: false)
        // As an hour later: a budget that is full a tenth of a second after it was written, and a gate.
        let later = wallClockMs() + Int64(FunctionServer.hour)
        let take = { (key: String) in
            try await server.call("fleet_limit_take", [key, "budget"], [1, "1", "1", "1", "1"]).array?.map(\.int) ?? []
        }
        for key in ["gate", "budget"] {
            try await server.redis("SET", key, "\(later + 100).5 \(later)")
            let wait = try await take("gate")
            #expect(wait.count == 3 && wait[0] == 0 && 1...101 ~= wait[1] ?? 0, "\(key): \(wait)")
            try await eventually("it is over", within: .seconds(10)) { try await take("gate")[0] == 1 }
            try await server.redis("DEL", "gate", "budget")
        }
    }

    @Test("a window that rolls has begun its own length ago")
    func rollingCorrection() async throws {
        let server = try await FunctionServer(streams: false)
        func correct(_ used: RedisArgument, age: RedisArgument) async throws -> Int? {
            try await server.call("fleet_limit_correct", ["budget"], [used, .int(FunctionServer.hour), "1", age, "1"])
                .int
        }
        #expect(try await correct("3600", age: "0") == 0, "all of it is refilled")
        #expect(try await correct("3660", age: .int(FunctionServer.hour + 1)) == 0, "of the window before")
        let before = wallClockMs()
        #expect(try await correct("3620", age: "1000") == 1)
        let full = Double(try await server.redis("GET", "budget").text?.split(separator: " ").first ?? "") ?? 0
        #expect((Double(before) + 59_999...Double(wallClockMs()) + 60_001) ~= full)
        #expect(try await correct("3619", age: "0") == 0, "never less")
    }
}

@Suite("Function library: the order journal", .timeLimit(.minutes(1)))
struct JournalFunctionTests {
    private func note(_ what: String, _ owner: String, _ journal: String, on server: FunctionServer) async throws
        -> Int?
    {
        try await server.call("fleet_journal_note", [journal], [.text(what), .text(owner), "77"]).int
    }

    private func end(_ state: String, _ journal: String, on server: FunctionServer) async throws -> String? {
        try await server.call("fleet_journal_end", [journal], [.text(state), .text("{\(state)}"), 600]).text
    }

    private func cancel(_ journal: String, on server: FunctionServer) async throws -> [String] {
        Array(try await server.call("fleet_journal_cancel", [journal], [600]).texts.prefix(4))
    }

    private func read(_ journal: String, on server: FunctionServer) async throws -> [String] {
        try await server.call("fleet_journal_read", [journal], []).texts
    }

    private func settle(_ journal: String, on server: FunctionServer) async throws -> String? {
        try await server.call(
            "fleet_journal_settle", [journal, server.keys.result("o")],
            ["accepted", "{settled}", "{result}", 600, "me"]
        ).text
    }

    @Test("a send is begun once; its owner may repeat the call, and anybody the send that was released")
    func begun() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await read(journal, on: server) == [])
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await begin("b", journal, on: server) == ["sending", "", "a", ""])
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await note("released", "b", journal, on: server) == 0)
        #expect(try await note("released", "a", journal, on: server) == 1)
        // As that of a failed order that was replayed.
        try await server.redis("EXPIRE", journal, "600")
        #expect(try await begin("b", journal, on: server) == ["begun"])
        #expect(try await note("uncertain", "a", journal, on: server) == 0)
        let standing = try await read(journal, on: server)
        #expect(standing.prefix(4) == ["sending", "", "b", ""] && standing[6] == "")
        #expect((1...FunctionServer.hour).contains(Int(standing[4]) ?? 0))
        #expect(try await server.redis("TTL", journal).int == -1, "an open journal does not end by itself")
        #expect(standing[7] == "2", "what its owner began anew was no other send")
    }

    @Test("a cancel that comes between two tries of one send prevents the second")
    func canceledBetweenTries() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await cancel(journal, on: server)[0] == "sending")
        #expect(try await begin("a", journal, on: server) == ["canceled", "", "", ""])
        #expect((1...600).contains(try await server.redis("TTL", journal).int ?? 0))
    }

    @Test("the journal of an order that is prevented lives for longer than its job is delayed")
    func canceledWhileDelayed() async throws {
        let server = try await FunctionServer()
        let days = 8 * 24 * FunctionServer.hour
        #expect(try await server.enqueue("o", kind: .submitOrder, wait: days) == ["delayed", "o"])
        let journal = server.keys.order("o")
        _ = try await server.call("fleet_journal_cancel", [journal, server.keys.marker("o")], [600])
        #expect(try await server.redis("TTL", journal).int ?? 0 > days / 1000)
    }

    @Test("its own send is not repeated when nobody knows what became of it")
    func uncertain() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await note("uncertain", "a", journal, on: server) == 1)
        #expect(try await begin("a", journal, on: server)[0] == "sending")
        // Once it is known not to be executed, it is the owner's again, and the call may be repeated.
        #expect(try await note("released", "a", journal, on: server) == 1)
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await begin("a", journal, on: server) == ["begun"])
    }

    @Test("found absent twice, a second apart, after the exchange can no longer accept it: then it may be sent again")
    func absent() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await note("absent", "b", journal, on: server) == 0)
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await note("absent", "b", journal, on: server) == 0)
        try await server.redis("HSET", journal, "absent", "2")
        #expect(try await begin("b", journal, on: server)[0] == "sending")
        try await server.redis("HSET", journal, "absent", "0", "send_until_ms", "1")
        #expect(try await begin("b", journal, on: server)[0] == "sending")
        #expect(try await note("absent", "b", journal, on: server) == 1)
        #expect(try await note("absent", "c", journal, on: server) == 0)
        #expect(try await begin("b", journal, on: server)[0] == "sending")
        try await server.redis("HSET", journal, "absent_ms", "1", "unasked_ms", "1")
        #expect(try await note("unasked", "c", journal, on: server) == 0)
        #expect(try await server.redis("HGET", journal, "unasked_ms").text == "1", "the first that was not answered")
        let ofSecond = try await server.call("fleet_journal_note", [journal], ["absent", "c", "", 2])
        #expect(ofSecond.int == 0, "asked about a send that this one is not")
        #expect(try await note("absent", "c", journal, on: server) == 1)
        #expect(try await note("unasked", "c", journal, on: server) == 1, "it was answered meanwhile")
        #expect(try await begin("b", journal, on: server) == ["begun"])
        #expect(try await server.redis("HEXISTS", journal, "unasked_ms").int == 0)
        #expect(try await begin("a", journal, on: server) == ["sending", "", "b", ""])
        #expect(try await server.redis("HGET", journal, "sends").text == "2")
        // The absences of the first send say nothing about the second.
        try await server.redis("HSET", journal, "send_until_ms", "1")
        #expect(try await begin("c", journal, on: server)[0] == "sending")
    }

    @Test("an order that nobody asked about for long is absent only when it has been for as long as it may be hidden")
    func hidden() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        func since(_ counts: RedisArgument = "1") async throws -> Int {
            _ = try await server.call("fleet_journal_note", [journal], ["absent", "", "", 1, 1, counts])
            return Int(try await server.redis("HGET", journal, "hidden_ms").text ?? "") ?? 0
        }
        let first = try await since()
        #expect(abs(first - Int(wallClockMs())) < 10_000)
        #expect(try await since() == first, "asked again at once")
        let longAgo = "\(first - 21_000)"
        try await server.redis("HSET", journal, "looked_ms", longAgo, "hidden_ms", longAgo)
        #expect(try await since() >= first, "it may have been shown in between")
        let silence = "\(wallClockMs() - 2000)"
        try await server.redis("HSET", journal, "looked_ms", silence, "hidden_ms", longAgo)
        _ = try await server.call("fleet_journal_note", [journal], ["absent", "", "", 1, 1, "1", 1500])
        #expect(Int(try await server.redis("HGET", journal, "hidden_ms").text ?? "") ?? 0 >= first, "nor for longer")
        // One that does not count is none after the window, whenever it is told.
        try await server.redis("HDEL", journal, "hidden_ms")
        try await server.redis("HSET", journal, "send_until_ms", longAgo)
        #expect(try await since("0") == (Int(longAgo) ?? 0) - 1)
        // Two questions after the window prove something however far apart they are.
        try await server.redis("HSET", journal, "looked_ms", longAgo, "hidden_ms", longAgo, "send_until_ms", "1")
        _ = try await note("unasked", "b", journal, on: server)
        #expect(try await since("0") == Int(longAgo))
        #expect(try await server.redis("HEXISTS", journal, "unasked_ms").int == 0, "it was answered")
        #expect(try await server.redis("HGET", journal, "absent").text == "0", "it does not count yet")
        try await server.redis("HSET", journal, "absent", "2")
        for (lag, standing) in [(FunctionServer.hour, "sending"), (20_000, "begun")] {
            let words: [RedisArgument] = ["b", 1000, 600, "submit_order", "0", "A/B", "buy", .int(lag)]
            // Who did not ask about it, or about another request, must not send it.
            for (sends, tries) in [("", ""), ("1", "0"), ("1", "1")] {
                let reply = try await server.call(
                    "fleet_journal_begin", [journal, server.keys.paused], words + [.text(sends), .text(tries)])
                #expect(reply.texts[0] == (tries == "1" ? standing : "sending"))
            }
        }
        #expect(try await server.redis("HEXISTS", journal, "hidden_ms").int == 0, "of the next send nothing is known")
    }

    @Test("what the exchange has an order under is not forgotten by who learns less")
    func acknowledgedTwice() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        var known: [String] = []
        for id in ["", "77", "", "78"] {
            #expect(try await server.call("fleet_journal_note", [journal], ["acknowledged", "a", .text(id)]).int == 1)
            known.append(try await read(journal, on: server)[3])
            try await server.redis("HSET", journal, "acknowledged_ms", "7")
        }
        #expect(known == ["", "77", "77", "77"])
        #expect(try await server.redis("HGET", journal, "acknowledged_ms").text == "7", "since when stays")
    }

    @Test("that an earlier request was not shown says nothing of the last one, of the same send too")
    func absentBefore() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        let seen = RedisArgument.text(try await read(journal, on: server)[15])
        // The exchange refused its clock, and it is sent again.
        #expect(try await begin("a", journal, on: server) == ["begun"])
        try await server.redis("HSET", journal, "send_until_ms", "1")
        let late = try await server.call("fleet_journal_note", [journal], ["absent", "", "", 1, seen])
        let last = RedisArgument.text(try await read(journal, on: server)[15])
        let next = try await server.call("fleet_journal_note", [journal], ["absent", "", "", 1, last])
        #expect(late == .integer(0) && next == .integer(1))
    }

    @Test("an acknowledged order is never sent again, whatever is noted after")
    func acknowledged() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await begin("a", journal, on: server) == ["begun"])
        #expect(try await note("acknowledged", "b", journal, on: server) == 0)
        #expect(try await note("acknowledged", "a", journal, on: server) == 1)
        #expect(try await begin("a", journal, on: server) == ["sending", "", "a", "77"])
        #expect(try await note("released", "a", journal, on: server) == 0)
        try await server.redis("HSET", journal, "send_until_ms", "1", "absent", "2")
        for owner in ["a", "b"] { #expect(try await begin(owner, journal, on: server).last == "77") }
    }

    @Test("a cancel prevents its order, whatever symbol it names, and absences are one order's")
    func canceledSymbols() async throws {
        let server = try await FunctionServer(streams: false)
        func cancel(_ id: String, _ symbol: RedisArgument) async throws -> String? {
            try await server.call("fleet_journal_cancel", [server.keys.order(id)], [600, symbol]).texts.first
        }
        func begin(_ id: String, _ symbol: RedisArgument, _ terms: RedisArgument = "", stamp: Int = 1) async throws
            -> String?
        {
            try await server.call(
                "fleet_journal_begin", [server.keys.order(id), server.keys.paused],
                ["w 1-0", 5000, 600, "submit_order", .int(stamp), symbol, terms]
            ).texts.first
        }
        #expect(try await cancel("o", "C/D") == "canceled")
        #expect(try await begin("o", "A/B") == "canceled")
        // What was sent is not prevented by what a cancel saw before, nor by another's absences.
        #expect(try await begin("sent", "A/B", "buy 1") == "begun")
        let late = try await server.call(
            "fleet_journal_end", [server.keys.order("sent")], ["accepted", "{old}", 600, "2", ""])
        #expect(late.text == "")
        try await server.redis("HSET", server.keys.order("sent"), "send_until_ms", "1", "absent", "2", "owner", "x")
        #expect(try await begin("sent", "C/D", "buy 1") == "sending")
        #expect(try await begin("sent", "A/B", "buy 2") == "sending")
        #expect(try await begin("sent", "A/B", "buy 1", stamp: 2) == "begun")
        #expect(try await server.redis("HGET", server.keys.order("sent"), "first_stamp_ms").text == "1")
    }

    @Test("a cancel prevents the send that has not begun, and the next one of that which has")
    func canceled() async throws {
        let server = try await FunctionServer(streams: false)
        let (first, second) = (server.keys.order("o"), server.keys.order("p"))
        #expect(try await cancel(first, on: server) == ["canceled", "", "", ""])
        #expect(try await begin("a", first, on: server)[0] == "canceled")
        #expect(try await read(first, on: server)[6] == "1")
        #expect(try await begin("a", second, on: server) == ["begun"])
        #expect(try await cancel(second, on: server)[0] == "sending")
        #expect(try await begin("b", second, on: server)[0] == "sending")
        #expect(try await note("released", "a", second, on: server) == 1)
        #expect(try await begin("b", second, on: server) == ["canceled", "", "", ""])
        #expect(try await begin("a", second, on: server)[0] == "canceled")
        // Its first send was refused, which is said late: it stays canceled, unless the exchange has it after all.
        let refusal = try await server.call("fleet_journal_end", [second], ["rejected", "{rejected}", 600, "", "a"])
        #expect(refusal.text == "")
        #expect(try await end("accepted", second, on: server) == "{accepted}")
        #expect(try await cancel(second, on: server) == ["accepted", "{accepted}", "a", ""])
        for journal in [first, second] {
            #expect((1...600).contains(try await server.redis("TTL", journal).int ?? 0))
        }
    }

    @Test("a paused kind is not sent, and its journal stays as it was")
    func paused() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        try await server.redis("SADD", server.keys.paused, "submit_order")
        #expect(try await begin("a", journal, on: server) == ["paused"])
        #expect(try await server.redis("EXISTS", journal).int == 0)
        try await server.redis("SREM", server.keys.paused, "submit_order")
        #expect(try await begin("a", journal, on: server) == ["begun"])
    }

    @Test("an outcome stays; unknown gives way to a definite one only, or to a person's word")
    func outcomes() async throws {
        let server = try await FunctionServer(streams: false)
        let journal = server.keys.order("o")
        #expect(try await settle(journal, on: server) == "")
        #expect(try await end("unknown", journal, on: server) == "{unknown}")
        #expect(try await end("unknown", journal, on: server) == "{unknown}")
        #expect(try await server.redis("TTL", journal).int == -1, "it is there until somebody knows")
        #expect(try await begin("a", journal, on: server).prefix(2) == ["unknown", "{unknown}"])
        let unsent = try await server.call("fleet_journal_end", [journal], ["expired", "{expired}", 600, "1"])
        #expect(unsent.text == "{unknown}", "what may exist does not end as what was never sent")
        #expect(try await server.redis("SCARD", server.keys.unsettled).int == 1)
        #expect(try await settle(journal, on: server) == "settled")
        #expect(try await server.redis("SCARD", server.keys.unsettled).int == 0)
        #expect(try await server.redis("HGET", journal, "note").text == "me")
        #expect(try await server.redis("GET", server.keys.result("o")).text == "{result}")
        #expect(try await settle(journal, on: server) == "accepted")
        #expect(try await end("rejected", journal, on: server) == "{settled}")

        let second = server.keys.order("p")
        #expect(try await begin("a", second, on: server) == ["begun"])
        #expect(try await end("unknown", second, on: server) == "{unknown}")
        #expect(try await end("rejected", second, on: server) == "{rejected}")
        #expect(try await server.redis("SCARD", server.keys.unsettled).int == 0)
        for state in ["accepted", "unknown"] { #expect(try await end(state, second, on: server) == "{rejected}") }
        for what in ["released", "acknowledged", "uncertain", "absent"] {
            #expect(try await note(what, "a", second, on: server) == 0)
        }
        #expect(try await begin("a", second, on: server).prefix(2) == ["rejected", "{rejected}"])
        #expect((1...600).contains(try await server.redis("TTL", second).int ?? 0))
    }
}
