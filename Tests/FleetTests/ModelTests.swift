import Exchanges
import Foundation
import NIOPosix
import Redis
import TestSupport
import Testing

@testable import Fleet

/// Random interleavings of every function, each step compared with a model of what it should have done. One seed is
/// repeated with `FLEET_MODEL_SEED`, more than the usual number are run with `FLEET_MODEL_SEEDS`.
@Suite("Model of the function library", .serialized, .timeLimit(.minutes(10)))
struct ModelTests {
    private static let environment = ProcessInfo.processInfo.environment

    private static func seeds(_ usual: Int) -> ClosedRange<UInt64> {
        if let seed = environment["FLEET_MODEL_SEED"].flatMap(UInt64.init) { return seed...seed }
        return 1...(environment["FLEET_MODEL_SEEDS"].flatMap(UInt64.init) ?? UInt64(usual))
    }

    @Test("every job is in exactly one place, whatever workers do, and in the end each is done")
    func jobs() async throws {
        let violation = try await firstViolation(of: JobModel.self, Self.seeds(200), library: Self.library())
        #expect(violation == nil, "\(violation ?? "")")
    }

    @Test("no order is sent while an earlier send may have been or may be accepted")
    func journal() async throws {
        let violation = try await firstViolation(of: JournalModel.self, Self.seeds(300), library: Self.library())
        #expect(violation == nil, "\(violation ?? "")")
    }

    @Test("the model of jobs notices each protection that is taken away", arguments: Mutation.jobs)
    func jobMutation(_ mutation: Mutation) async throws {
        let library = try Self.library(mutation)
        #expect(try await firstViolation(of: JobModel.self, 1...300, library: library) != nil)
    }

    @Test("the model of the journal notices each protection that is taken away", arguments: Mutation.journal)
    func journalMutation(_ mutation: Mutation) async throws {
        let library = try Self.library(mutation)
        #expect(try await firstViolation(of: JournalModel.self, 1...300, library: library) != nil)
    }

    private static func library(_ mutation: Mutation? = nil) throws -> String {
        let text = String(decoding: PackageResources.fleet_lua, as: UTF8.self)
        guard let mutation else { return text }
        try #require(text.contains(mutation.protection), "the library has changed: say here what protects now")
        return text.replacingOccurrences(of: mutation.protection, with: mutation.replacement)
    }
}

/// A protection of the library and what stands there without it.
struct Mutation: Sendable, CustomTestStringConvertible {
    let testDescription, protection, replacement: String

    init(_ name: String, _ protection: String, _ replacement: String) {
        (testDescription, self.protection, self.replacement) = (name, protection, replacement)
    }

    static let jobs = [
        Mutation(
            "the fence", "return #redis.pcall('XPENDING', stream, group, entry, entry, 1, consumer) > 0", "return true"),
        Mutation("a heartbeat asks who owns", "if owns(keys[1], argv[1], argv[2], argv[i]) then", "if true then"),
        Mutation("a retry takes the entry", "  take(keys[1], argv[1], argv[3])\n  return due", "  return due"),
        Mutation("a taken entry is acknowledged", "  redis.call('XACK', stream, group, entry)\n", ""),
        Mutation("a taken entry is deleted", "  redis.call('XDEL', stream, entry)\n", ""),
        Mutation("a retry keeps the fields", "with(entries[1][2], {'id'", "with({}, {'id'"),
        Mutation("a retry keeps the history", "local story = history(entries[1][2], argv[9])", "local story = argv[9]"),
        Mutation("a promoted job leaves the delayed", "      redis.call('ZREM', keys[1], member)\n", ""),
        Mutation("only what is due is promoted", "'-inf', time, 'LIMIT'", "'-inf', '+inf', 'LIMIT'"),
        Mutation(
            "a schedule stays on its grid", "due + every * (math.floor((time - due) / every) + 1)", "time + every"),
        Mutation("a schedule waits for its last job", "not isLate and place(argv[2] .. last, '')", "false"),
        Mutation(
            "a schedule leaves no marker behind", "if last then redis.call('DEL'", "if false then redis.call('DEL'"),
        Mutation("an unscheduled one neither", "if job[5] then", "if false then"),
        Mutation("a retired consumer has nothing pending", "isMeant and info[4] == 0", "isMeant"),
        Mutation("a replayed job leaves the dead", "  redis.call('XDEL', keys[1], argv[1])\n", ""),
        Mutation("an id at work is not replayed", "if place(keys[3], '') then", "if false then"),
        Mutation("a replay takes the result away", "  redis.call('DEL', keys[4])\n", ""),
        Mutation("a lease is waited for", "argv[2], argv[3], argv[4], 'COUNT'", "argv[2], 0, argv[4], 'COUNT'"),
        Mutation("a claim goes on from its cursor", "return {reply[1], reply[2]}", "return {'0-0', reply[2]}"),
        Mutation("an id at work is refused", "    if found then return", "    if false then return"),
        Mutation("a finished id is refused", "if redis.call('EXISTS', keys[4]) == 1 then", "if false then"),
        Mutation("a full stream refuses", "if redis.call('XLEN', keys[1]) >= numbers[4] then", "if false then"),
        Mutation("a marker is moved by its own job only", "~= from then return end", "== false then return end"),
        Mutation("a marker follows a promoted job", "'delayed ' .. id, streams[kind]", "'', streams[kind]"),
        Mutation("what is unscheduled leaves no marker", "mark(keys[2], 'delayed ' .. argv[1])", ""),
        Mutation(
            "a buried job is kept", "redis.call('XADD', keys[4], '*'", "redis.call('XADD', keys[4], 'MAXLEN', 1, '*'"),
        Mutation("a result is stored", "if tonumber(ttl) > 0 then", "if tonumber(ttl) > 99 then"),
        Mutation("a retry waits", "local due = time + tonumber(argv[6])", "local due = time"),
    ]

    static let journal = [
        Mutation("one owner at a time", "local isFree = not j.state or j.state == 'released'", "local isFree = true"),
        Mutation("the owner is looked at", "j.state == 'sending' and j.owner == argv[1]", "j.state == 'sending'"),
        Mutation(
            "an acknowledged send is not repeated", "== argv[1] and not j.exchange_order_id and", "== argv[1] and"),
        Mutation("an uncertain send is not repeated", " and not j.uncertain_ms", ""),
        Mutation(
            "an acknowledged order is not absent", "'sending' and not j.exchange_order_id and tonumber",
            "'sending' and tonumber"),
        Mutation("absent twice", "tonumber(j.absent or 0) >= 2", "tonumber(j.absent or 0) >= 1"),
        Mutation(
            "a new send begins with no absences", "'absent', 0, 'stamp_ms'", "'stamp_ms'"),
        Mutation("absent after the send's time", " or time < tonumber(j.send_until_ms) or time", " or time"),
        Mutation("absences a second apart", " or time - tonumber(j.absent_ms or 0) < 1000", ""),
        Mutation("a cancel comes before a send", "if j.cancel_ms then", "if false then"),
        Mutation("a cancel is written down", "redis.call('HSET', keys[1], 'cancel_ms', now())", "do end"),
        Mutation("a cancel prevents what is not sent", "j.state = 'canceled'", "do end"),
        Mutation(
            "a pause comes before a send", "if redis.call('SISMEMBER', keys[2], argv[4]) == 1 then", "if false then"),
        Mutation("a note is the owner's", "elseif j.owner ~= argv[2] or", "elseif"),
        Mutation("what is acknowledged is not released", " or argv[1] == 'released' and j.exchange_order_id", ""),
        Mutation("a note is of a send under way", "if j.state ~= 'sending' or j.outcome then return 0 end", ""),
        Mutation(
            "a known outcome stays", "if j.outcome and (j.state ~= 'unknown' or argv[1] == 'unknown')", "if false"),
        Mutation("unknown gives way", "(j.state ~= 'unknown' or argv[1] == 'unknown')", "true"),
        Mutation("a refusal is of its own send", "if isOthers and argv[1] ~= 'accepted' then", "if false then"),
        Mutation("anybody may have found the order", "if isOthers and argv[1] ~= 'accepted' then", "if isOthers then"),
        Mutation("what was sent is not unsent", "(j.state == 'sending' or j.state == 'unknown')", "false"),
        Mutation(
            "what is canceled stays so", "if argv[4] ~= '2' and j.state == 'canceled'",
            "if argv[4] == '' and j.state == 'canceled'"),
        Mutation("canceled is no refusal", "if argv[4] ~= '2' and j.state == 'canceled'", "if false"),
        Mutation("an absence is of the last request", " or argv[5] and argv[5] ~= (j.tries or '0')", ""),
        Mutation("a person settles only what is unknown", "if state ~= 'unknown' then return", "if false then return"),
    ]
}

// MARK: - Running models

/// What the library should have done, kept beside it.
protocol Model: Sendable {
    static var steps: Int { get }
    init(_ redis: RedisConnection, seed: UInt64)
    /// Takes one random step and compares. - Throws: `Violation`.
    mutating func step() async throws
    /// Brings everything to an end and compares. - Throws: `Violation`.
    mutating func end() async throws
}

struct Violation: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Runs the model with each seed, four at a time, until one is violated. - Returns: which, where, and how.
func firstViolation<M: Model>(of _: M.Type, _ seeds: ClosedRange<UInt64>, library: String) async throws -> String? {
    let server = try await RedisServer()
    return try await withThrowingTaskGroup(of: String?.self) { group in
        for lane in 0..<4 {
            group.addTask {
                let redis = try await RedisConnection.connect(
                    to: RedisURL(server.url + "?db=\(lane)"), on: MultiThreadedEventLoopGroup.singleton.next(),
                    name: "model")
                defer { redis.close() }
                if lane == 0 { _ = try await redis.send(["FUNCTION", "LOAD", "REPLACE", .text(library)]) }
                try await eventually("the library is loaded") {
                    (try? await redis.send(["FCALL", "fleet_version", 0])) != nil
                }
                var seed = seeds.lowerBound + UInt64(lane)
                while seeds.contains(seed), !Task.isCancelled {
                    defer { seed += 4 }
                    _ = try await redis.send(["FLUSHDB"])
                    var model = M(redis, seed: seed)
                    var number = 0
                    do {
                        while number < M.steps {
                            number += 1
                            try await model.step()
                        }
                        try await model.end()
                    } catch {
                        let text = "FLEET_MODEL_SEED=\(seed), step \(number): \(error)"
                        print(text)
                        return text
                    }
                }
                return nil
            }
        }
        for try await violation in group {
            guard let violation else { continue }
            group.cancelAll()
            return violation
        }
        return nil
    }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    mutating func below(_ count: Int) -> Int { Int.random(in: 0..<count, using: &self) }
    mutating func pick<Element>(_ list: [Element]) -> Element? { list.randomElement(using: &self) }
}

// MARK: - Jobs

/// Where every job should be. Time passes by command: a silent delivery is made hours old, a delayed job is given a due
/// time long past, so that nothing depends on how fast the test runs.
struct JobModel: Model {
    static let steps = 120
    private static let (hour, every) = (FunctionServer.hour, 10_000_000_000)

    private struct ModelJob {
        let number: Int
        let kind: Kind
        let payload: [UInt8]
        var id: String
        var attempt = "-"
        var enqueued = "-"
        var history: String?

        var line: String {
            let bytes = payload.map { (16 + Int($0)).description }.joined(separator: ".")
            return "\(number) \(id.isEmpty ? "-" : id) \(bytes) \(attempt) \(enqueued) \(history ?? "")"
        }
        var fields: [RedisArgument] { ["payload", .bytes(payload), "n", .int(number)] }
    }

    private struct Entry {
        let id: String
        var job: ModelJob
        var owner: String?
        var deliveries = 0
        var isSilent = false
    }

    private struct Delayed {
        let memberId: String
        let job: ModelJob
        var every = 0
        /// The entry that a schedule added last.
        var last: String?
        /// nil: in an hour.
        var due: Int?
    }

    private struct Worker {
        var name: String
        var held: [(kind: Kind, entry: String, job: ModelJob)] = []
        var cursors: [Kind: String] = [:]
    }

    private let redis: RedisConnection
    private let keys = Keys(.binance)
    private var random: SeededGenerator
    private var streams: [Kind: [Entry]] = [:]
    private var delayed: [Delayed] = []
    private var dead: [(entry: String, job: ModelJob, worker: String)] = []
    private var markers: [String: String] = [:]
    private var results: [String: String] = [:]
    private var workers = ["w1", "w2", "w3"].map { Worker(name: $0) }
    private var (lastJob, lastWorker, lastDue) = (0, 3, 0)
    private var isStarted = false
    private var seen = ""
    private var what = ""

    init(_ redis: RedisConnection, seed: UInt64) {
        self.redis = redis
        random = SeededGenerator(state: seed)
    }

    mutating func step() async throws {
        if !isStarted {
            isStarted = true
            for kind in Kind.allCases {
                _ = try await redis.send([
                    "XGROUP", "CREATE", .text(keys.jobs(kind)), .text(Keys.group), 0, "MKSTREAM",
                ])
            }
        }
        switch random.below(32) {
        case 0..<5: try await enqueue()
        case 5: try await add()
        case 6..<11: try await read(most: 1 + random.below(3))
        case 11: try await beat()
        case 12..<15: try await finish()
        case 15..<18: try await retry()
        case 18: try await bury()
        case 19..<21: try await promote(most: 1 + random.below(3))
        case 21: try await ripen()
        case 22: try await silence()
        case 23..<25: try await claim(lease: random.below(2) * Self.hour, most: 1 + random.below(3))
        case 25: try await retire()
        case 26: try await replay()
        case 27: try await unschedule()
        case 28: try await expire()
        case 29..<31: try await finishPlainly()
        default:
            // The worker dies: its deliveries stay, nobody knows of them.
            let index = random.below(workers.count)
            lastWorker += 1
            workers[index] = Worker(name: "w\(lastWorker)")
        }
        try compare()
    }

    mutating func end() async throws {
        for id in Set(delayed.filter { $0.every > 0 }.map(\.memberId)).sorted() { try await unschedule(id) }
        while let job = dead.first {
            if let marker = markers[job.job.id] { try expect(!marker.isEmpty, "a marker that says nothing") }
            // Replayed where its id is free, else given up for good.
            if markers[job.job.id] == nil { try await replay(0) } else { try await forget() }
            try compare()
        }
        while !delayed.isEmpty { try await ripen() }
        try await promote(most: 1000)
        workers = [Worker(name: "last")]
        for kind in Kind.allCases {
            try await read(kind, most: 1000)
            try await claim(kind, lease: 0, most: 1000)
            while !workers[0].held.isEmpty { try await finish() }
        }
        while !results.isEmpty { try await expire() }
        try compare()
        try expect(streams.values.allSatisfy(\.isEmpty) && markers.isEmpty && delayed.isEmpty, "something is left")
        let names = try await redis.send(["KEYS", "*"]).texts
        let kept = Kind.allCases.map(keys.jobs) + [keys.dead, keys.retries]
        try expect(Set(names).isSubset(of: kept), "left behind: \(names)")
    }

    // MARK: The functions

    private mutating func enqueue() async throws {
        var (id, every) = (random.pick(["", "a", "b", "c", "d", "e"]) ?? "", 0)
        if random.below(8) == 0 { (id, every) = (random.pick(["s", "t"]) ?? "", Self.every) }
        let wait = every > 0 || random.below(3) == 0 ? Self.hour : 0
        let most = random.below(4) == 0 ? 3 : 1000
        let job = newJob(every > 0 ? "" : id)
        let stream = keys.jobs(job.kind)
        let arguments: [RedisArgument] = [
            .text(Keys.group), .text(job.kind.rawValue), .text(id), .int(most), 0, .int(wait), .int(every),
        ]
        let reply = try await call(
            "fleet_enqueue", [stream, keys.delayed, keys.marker(id), keys.result(id)], arguments + job.fields)
        if id.isEmpty, wait > 0 { return try expect(reply.error?.code, .server("ID")) }
        if !id.isEmpty, results[id] != nil { return try expect(reply.texts, ["duplicate", "finished"]) }
        if !id.isEmpty, let place = markers[id] {
            let entry = streams.values.joined().first {
                place.hasSuffix(" " + $0.id) && place.contains($0.job.kind.rawValue)
            }
            let word = place.hasPrefix("delayed ") ? "delayed" : entry?.owner == nil ? "queued" : "running"
            return try expect(reply.texts, ["duplicate", word])
        }
        if wait > 0 {
            try expect(reply.texts, ["delayed", id])
            delayed.append(Delayed(memberId: id, job: job, every: every))
            markers[id] = "delayed \(id)"
        } else if streams[job.kind, default: []].count >= most {
            try expect(reply.error?.code, .server("FULL"))
        } else {
            try expect(reply.texts.first, "queued")
            let entry = reply.texts.last ?? ""
            streams[job.kind, default: []].append(Entry(id: entry, job: job))
            if !id.isEmpty { markers[id] = stream + " " + entry }
        }
    }

    /// A plain `XADD`, which knows nothing of ids.
    private mutating func add() async throws {
        let number = lastJob + 1
        let job = newJob(random.pick(["", "p\(number)", "a", "b"]) ?? "")
        let head: [RedisArgument] = ["XADD", .text(keys.jobs(job.kind)), "*"]
        let id: [RedisArgument] = job.id.isEmpty ? [] : ["id", .text(job.id)]
        let entry = try await send(RedisCommand(head + job.fields + id)).text ?? ""
        streams[job.kind, default: []].append(Entry(id: entry, job: job))
    }

    private mutating func read(_ kind: Kind? = nil, most: Int) async throws {
        let (worker, kind) = (random.below(workers.count), kind ?? anyKind())
        let reply = try await send([
            "XREADGROUP", "GROUP", .text(Keys.group), .text(workers[worker].name), "COUNT", .int(most), "STREAMS",
            .text(keys.jobs(kind)), ">",
        ])
        let got = reply.array?.first?.array?.last?.array?.compactMap { $0.array?.first?.text } ?? []
        let waiting = streams[kind, default: []].indices.filter { streams[kind]?[$0].owner == nil }.prefix(most)
        try expect(got, waiting.map { streams[kind, default: []][$0].id })
        for index in waiting {
            streams[kind]?[index].owner = workers[worker].name
            streams[kind]?[index].deliveries = 1
            let entry = streams[kind, default: []][index]
            workers[worker].held.append((kind, entry.id, entry.job))
        }
    }

    private mutating func beat() async throws {
        let (worker, kind) = (random.below(workers.count), anyKind())
        let held = workers[worker].held.filter { $0.kind == kind }
        let entries = held.map { RedisArgument.text($0.entry) }
        let lost = try await call(
            "fleet_beat", [keys.jobs(kind)], [.text(Keys.group), .text(workers[worker].name)] + entries)
        let mine = held.compactMap { owned($0.kind, $0.entry, by: workers[worker].name) }
        try expect(lost.int, held.count - mine.count)
        for index in mine { streams[kind]?[index].isSilent = false }
    }

    private mutating func finish() async throws {
        guard let (worker, job, entry) = next() else { return }
        let ttl = random.below(2) * 60
        let reply = try await call(
            "fleet_finish", [keys.jobs(job.kind), keys.result(job.id), keys.marker(job.id)],
            [.text(Keys.group), .text(worker), .text(entry), .text("r\(job.number)"), .int(ttl), 60])
        guard try take(job.kind, entry, worker, reply) != nil else { return }
        if ttl > 0 { results[job.id] = "r\(job.number)" }
        mark(job, from: entry, to: nil)
    }

    /// What `Finisher` writes for a plain ticker whose lease is young, without a look whose it is: the process may have
    /// been stopped in between, so the delivery is anybody's by now, or over. The marker goes only where it is this entry's.
    private mutating func finishPlainly() async throws {
        guard let (_, job, entry) = next(.fetchTicker) else { return }
        let ttl = random.below(2) * 60
        let stream = RedisArgument.text(keys.jobs(job.kind))
        let unmark: [RedisCommand] =
            job.id == entry
            ? []
            : [
                FunctionLibrary.command(
                    "fleet_unmark", [keys.marker(job.id)], [.text(keys.jobs(job.kind) + " " + entry)])
            ]
        _ = await redis.pipeline(
            [["MULTI"]]
                + (ttl > 0 ? [["SET", .text(keys.result(job.id)), .text("r\(job.number)"), "EX", .int(ttl)]] : [])
                + [["XACK", stream, .text(Keys.group), .text(entry)], ["XDEL", stream, .text(entry)]]
                + unmark)
        let reply = try await send(["EXEC"])
        try expect(reply.array?.count, (ttl > 0 ? 3 : 2) + unmark.count)
        streams[job.kind]?.removeAll { $0.id == entry }
        if ttl > 0 { results[job.id] = "r\(job.number)" }
        if job.id != entry { mark(job, from: entry, to: nil) }
    }

    private mutating func bury() async throws {
        guard let (worker, job, entry) = next() else { return }
        let line = random.below(2) == 0 ? "" : "b"
        let ttl = random.below(2) * 60
        let reply = try await call(
            "fleet_bury", [keys.jobs(job.kind), keys.result(job.id), keys.marker(job.id), keys.dead],
            [
                .text(Keys.group), .text(worker), .text(entry), .text("r\(job.number)"), .int(ttl), 60,
                .text(job.kind.rawValue), .text(job.id), "why", .text(line), .int(job.number), 9,
            ])
        guard var buried = try take(job.kind, entry, worker, reply) else { return }
        if ttl > 0 { results[job.id] = "r\(job.number)" }
        mark(job, from: entry, to: nil)
        (buried.id, buried.attempt, buried.enqueued) = (job.id, "9", "\(job.number)")
        buried.history = line.isEmpty ? buried.history ?? "" : (buried.history.map { $0 + "," } ?? "") + line
        let last = try await redis.send(["XREVRANGE", .text(keys.dead), "+", "-", "COUNT", 1])
        dead.append((last.array?.first?.array?.first?.text ?? "", buried, worker))
    }

    private mutating func retry() async throws {
        guard let (worker, job, entry) = next() else { return }
        let (wait, counts, line) = (random.below(2) * Self.hour, random.below(2), random.below(2) == 0 ? "" : "h")
        let attempt = random.below(5)
        let reply = try await call(
            "fleet_retry", [keys.jobs(job.kind), keys.delayed, keys.marker(job.id), keys.retries],
            [
                .text(Keys.group), .text(worker), .text(entry), .text(job.kind.rawValue), .text(job.id), .int(wait),
                .int(attempt), .int(job.number), .text(line), .int(counts),
            ])
        guard var again = try take(job.kind, entry, worker, reply) else { return }
        (again.id, again.attempt, again.enqueued) = (job.id, "\(attempt)", "\(job.number)")
        let story = line.isEmpty ? again.history ?? "" : (again.history.map { $0 + "," } ?? "") + line
        again.history = story.isEmpty ? nil : story
        if wait > 0 {
            delayed.append(Delayed(memberId: entry, job: again))
            mark(job, from: entry, to: "delayed \(entry)")
        } else {
            let added = try await arrived(again.kind, [again])[0]
            mark(job, from: entry, to: keys.jobs(job.kind) + " " + added)
        }
    }

    private mutating func promote(most: Int) async throws {
        let reply = try await call(
            "fleet_promote", [keys.delayed] + Kind.allCases.map(keys.jobs),
            [.int(most), .text(keys.markerPrefix)] + Kind.allCases.map { .text($0.rawValue) })
        let ripe = { (job: Delayed) in job.due.map { $0 < 1_000_000 } ?? false }
        let due = delayed.filter(ripe).sorted { ($0.due ?? 0) < ($1.due ?? 0) }.prefix(most)
        try expect(reply.array?.first?.int, due.count)
        for kind in Kind.allCases {
            let there = Set(streams[kind, default: []].map { keys.jobs(kind) + " " + $0.id })
            let moved = due.filter { job in
                guard job.job.kind == kind, let last = job.last, let place = markers[last] else {
                    return job.job.kind == kind
                }
                return !there.contains(place) && !place.hasPrefix("delayed")
            }
            for (entry, job) in zip(try await arrived(kind, moved.map(\.job)), moved) {
                if job.every > 0 {
                    if let last = job.last { markers[last] = nil }
                    markers[entry] = keys.jobs(kind) + " " + entry
                    for index in delayed.indices
                    where delayed[index].memberId == job.memberId && delayed[index].every > 0 {
                        delayed[index].last = entry
                    }
                    continue
                }
                guard markers[job.job.id] == "delayed \(job.memberId)" else { continue }
                markers[job.job.id] = keys.jobs(kind) + " " + entry
            }
        }
        let time = Int(Date().timeIntervalSince1970 * 1000)
        for job in due {
            guard let index = delayed.firstIndex(where: { $0.job.number == job.job.number && $0.due == job.due }),
                let was = job.due
            else { continue }
            if job.every > 0 {
                delayed[index].due = was + job.every * ((time - was) / job.every + 1)
            } else {
                delayed.remove(at: index)
            }
        }
        let wait = reply.array?.last?.int ?? -2
        try expect(delayed.isEmpty ? wait == -1 : delayed.contains(where: ripe) ? wait == 0 : wait > 0, "wait \(wait)")
    }

    private mutating func claim(_ kind: Kind? = nil, lease: Int, most: Int) async throws {
        let (worker, kind) = (random.below(workers.count), kind ?? anyKind())
        let (name, cursor) = (workers[worker].name, workers[worker].cursors[kind] ?? "0-0")
        let reply =
            try await call(
                "fleet_claim", [keys.jobs(kind)],
                [.text(Keys.group), .text(name), .int(lease), .text(cursor), .int(most)]
            ).array ?? []
        // As XAUTOCLAIM: at most ten entries looked at for one asked for.
        let pending = streams[kind, default: []].indices.filter { index in
            let entry = streams[kind, default: []][index]
            return entry.owner != nil && position(entry.id) >= position(cursor)
        }
        var (looked, taken) = (0, [Int]())
        while looked < pending.count, looked < most * 10, taken.count < most {
            let index = pending[looked]
            if lease == 0 || streams[kind, default: []][index].isSilent { taken.append(index) }
            looked += 1
        }
        for index in taken {
            streams[kind]?[index].owner = name
            streams[kind]?[index].deliveries += 1
            streams[kind]?[index].isSilent = false
            let entry = streams[kind, default: []][index]
            workers[worker].held.removeAll { $0.kind == kind && $0.entry == entry.id }
            workers[worker].held.append((kind, entry.id, entry.job))
        }
        let next = looked < pending.count ? streams[kind, default: []][pending[looked]].id : "0-0"
        let claimed = reply.last?.array?.compactMap(FunctionServer.Claimed.init) ?? []
        try expect(reply.first?.text, next)
        try expect(claimed.map(\.entry), taken.map { streams[kind, default: []][$0].id })
        try expect(claimed.map(\.deliveries), taken.map { streams[kind, default: []][$0].deliveries })
        workers[worker].cursors[kind] = next
    }

    private mutating func retire() async throws {
        let name = random.below(2) == 0 ? "" : random.pick(workers)?.name ?? ""
        _ = try await call("fleet_retire", [keys.jobs(anyKind())], [.text(Keys.group), .text(name), 0])
    }

    private mutating func replay(_ index: Int? = nil) async throws {
        guard let index = index ?? dead.indices.randomElement(using: &random) else { return }
        var (entry, job, _) = dead[index]
        let (stream, marker) = (keys.jobs(job.kind), keys.marker(job.id))
        let reply = try await call(
            "fleet_replay", [keys.dead, stream, marker, keys.result(job.id)], [.text(entry)])
        if markers[job.id] != nil { return try expect(reply.error?.code, .server("DUPLICATE")) }
        dead.remove(at: index)
        results[job.id] = nil
        job.attempt = "-"
        job.history = (job.history.map { $0 + "," } ?? "") + "why;,replayed"
        let added = try await arrived(job.kind, [job])[0]
        try expect(reply.text, added)
        markers[job.id] = stream + " " + added
    }

    private mutating func unschedule(_ id: String? = nil) async throws {
        guard let id = id ?? random.pick(["a", "b", "c", "s", "t", "x"]) else { return }
        let reply = try await call("fleet_unschedule", [keys.delayed, keys.marker(id)], [.text(id)])
        let count = delayed.count
        for last in delayed.filter({ $0.memberId == id }).compactMap(\.last) { markers[last] = nil }
        delayed.removeAll { $0.memberId == id }
        try expect(reply.int, count - delayed.count)
        if markers[id] == "delayed \(id)" { markers[id] = nil }
    }

    // MARK: What time and people do

    private mutating func ripen() async throws {
        guard
            let index = delayed.indices.filter({ delayed[$0].due.map { $0 > 1_000_000 } ?? true }).first
                ?? (delayed.isEmpty ? nil : 0)
        else { return }
        let members = try await redis.send(["ZRANGE", .text(keys.delayed), 0, -1]).array ?? []
        // With the schedule's or entry's id: a schedule and the jobs it made share their number.
        let (job, memberId) = (delayed[index].job, delayed[index].memberId)
        let marks = ["[\"\(job.kind.rawValue)\",\"\(memberId)\",", "\"n\",\"\(job.number)\""]
        guard let member = members.first(where: { member in marks.allSatisfy { member.text?.contains($0) == true } }),
            case .bytes(let bytes) = member
        else { throw Violation("a delayed job is not there: \(delayed[index])") }
        lastDue += 1
        delayed[index].due = lastDue
        _ = try await send(["ZADD", .text(keys.delayed), .int(lastDue), .bytes(bytes)])
        if !delayed.contains(where: { $0.due == nil || ($0.due ?? 0) > 1_000_000 }) { try await promote(most: 1000) }
    }

    private mutating func silence() async throws {
        let kind = anyKind()
        let running = streams[kind, default: []].indices.filter { streams[kind]?[$0].owner != nil }
        guard let index = random.pick(running), let entry = streams[kind]?[index], let owner = entry.owner else {
            return
        }
        streams[kind]?[index].isSilent = true
        _ = try await send([
            "XCLAIM", .text(keys.jobs(kind)), .text(Keys.group), .text(owner), 0, .text(entry.id), "IDLE", 7_200_000,
            "JUSTID",
        ])
    }

    /// A result's time is over.
    private mutating func expire() async throws {
        guard let id = random.pick(results.keys.sorted()) else { return }
        results[id] = nil
        _ = try await send(["DEL", .text(keys.result(id))])
    }

    private mutating func forget() async throws {
        let entry = dead.removeFirst().entry
        _ = try await send(["XDEL", .text(keys.dead), .text(entry)])
    }

    // MARK: Help

    private mutating func anyKind() -> Kind { random.pick([.cancelOrder, .fetchTicker]) ?? .fetchTicker }

    private mutating func newJob(_ id: String) -> ModelJob {
        lastJob += 1
        let payload = (0..<6).map { _ in random.pick([0, 10, 34, 92, 127, 128, 255, 65]) ?? UInt8(0) }
        return ModelJob(number: lastJob, kind: anyKind(), payload: payload, id: id)
    }

    /// A delivery that some worker believes to have; the worker forgets it.
    private mutating func next(_ kind: Kind? = nil) -> (worker: String, job: ModelJob, entry: String)? {
        let worker = random.below(workers.count)
        let held = workers[worker].held
        guard let index = random.pick(held.indices.filter { kind == nil || held[$0].kind == kind }) else { return nil }
        var (_, entry, job) = workers[worker].held.remove(at: index)
        if job.id.isEmpty { job.id = entry }
        return (workers[worker].name, job, entry)
    }

    private func owned(_ kind: Kind, _ entry: String, by worker: String) -> Int? {
        streams[kind]?.firstIndex { $0.id == entry && $0.owner == worker }
    }

    /// The job of a delivery that the worker owns, taken off its stream; nil: the fence should have refused.
    private mutating func take(
        _ kind: Kind, _ entry: String, _ worker: String, _ reply: RedisValue
    ) throws -> ModelJob? {
        let index = owned(kind, entry, by: worker)
        try expect((reply.int ?? 0) > 0, index != nil)
        return index.flatMap { streams[kind]?.remove(at: $0).job }
    }

    private mutating func mark(_ job: ModelJob, from entry: String, to place: String?) {
        if markers[job.id] == keys.jobs(job.kind) + " " + entry { markers[job.id] = place }
    }

    /// Takes over the ids of entries that were just added. - Returns: them.
    private mutating func arrived(_ kind: Kind, _ jobs: [ModelJob]) async throws -> [String] {
        guard !jobs.isEmpty else { return [] }
        let reply = try await redis.send([
            "XREVRANGE", .text(keys.jobs(kind)), "+", "-", "COUNT", .int(jobs.count),
        ])
        let ids = (reply.array?.compactMap { $0.array?.first?.text } ?? []).reversed()
        try expect(ids.count, jobs.count)
        for (id, job) in zip(ids, jobs) { streams[kind, default: []].append(Entry(id: id, job: job)) }
        return Array(ids)
    }

    /// An entry id as two numbers that can be compared.
    private func position(_ entry: String) -> (Int, Int) {
        let parts = entry.split(separator: "-").compactMap { Int($0) }
        return (parts.first ?? 0, parts.last ?? 0)
    }

    private mutating func call(
        _ function: String, _ names: [String], _ arguments: [RedisArgument]
    ) async throws -> RedisValue {
        try await send(
            RedisCommand(["FCALL", .text(function), .int(names.count)] + names.map(RedisArgument.text) + arguments))
    }

    private mutating func send(_ command: RedisCommand) async throws -> RedisValue {
        what = command.map { argument in
            switch argument {
            case .text(let text): text
            case .bytes(let bytes): "(\(bytes.count) bytes)"
            }
        }.joined(separator: " ")
        let replies = await redis.pipeline([command, ["EVAL", .text(Self.look), 0]])
        seen = try replies[1].get().text ?? ""
        return replies[0]
    }

    private func expect<Value: Equatable>(_ found: Value, _ expected: Value) throws {
        guard found == expected else { throw Violation("\(what) answered \(found), not \(expected)") }
    }

    private func expect(_ holds: Bool, _ sentence: String) throws {
        guard holds else { throw Violation("\(what): \(sentence)") }
    }

    /// Compares where everything is.
    private func compare() throws {
        var lines: [String] = []
        for (kind, entries) in streams {
            lines += entries.map { entry in
                "stream \(kind.rawValue) \(entry.id) \(entry.owner ?? "-") \(entry.deliveries) "
                    + "\(entry.isSilent ? "silent" : "-") \(entry.job.line)"
            }
        }
        lines += delayed.map { job in
            "delayed \(job.due.map(String.init) ?? "later") \(job.job.kind.rawValue) \(job.memberId) \(job.every) "
                + job.job.line
        }
        lines += dead.map { "dead \($0.entry) \($0.job.kind.rawValue) why \($0.worker) \($0.job.line)" }
        lines += markers.map { "marker \($0) \($1)" } + results.map { "result \($0) \($1)" }
        lines.sort()
        let expected = lines.joined(separator: "\n")
        guard seen != expected else { return }
        let found = seen.split(separator: "\n").map(String.init)
        throw Violation(
            "after \(what)\nfound only: \(found.filter { !lines.contains($0) })\n"
                + "expected only: \(lines.filter { !found.contains($0) })")
    }

    /// Tells where everything is, a sorted line each.
    private static let look = """
        local out, time = {}, redis.call('TIME')[1] * 1000
        local function line(list)
          local f = {}
          for i = 1, #list, 2 do f[list[i]] = list[i + 1] end
          local bytes = {}
          for i = 1, #(f.payload or '') do bytes[i] = 16 + string.byte(f.payload, i) end
          local story = string.gsub(string.gsub(f.fleet_history or '', ' at %d+', ''), '[\\n ]', ',')
          return table.concat({f.n or '-', f.id or '-', table.concat(bytes, '.'), f.fleet_attempt or '-',
            f.fleet_enqueued_ms or '-', story}, ' '), f
        end
        local function tell(...) out[#out + 1] = table.concat({...}, ' ') end
        for _, kind in ipairs{'cancel_order', 'submit_order', 'fetch_ticker', 'refresh_cache'} do
          local stream, pending = 'fleet:{binance}:jobs:' .. kind, {}
          for _, p in ipairs(redis.call('XPENDING', stream, 'workers', '-', '+', 1000)) do pending[p[1]] = p end
          for _, e in ipairs(redis.call('XRANGE', stream, '-', '+')) do
            local p = pending[e[1]] or {'', '-', 0, 0}
            pending[e[1]] = nil
            tell('stream', kind, e[1], p[2], p[4], p[3] > 3600000 and 'silent' or '-', (line(e[2])))
          end
          for id in pairs(pending) do tell('pending without entry', kind, id) end
        end
        local delayed = redis.call('ZRANGE', 'fleet:{binance}:delayed', 0, -1, 'WITHSCORES')
        for i = 1, #delayed, 2 do
          local job, due = cjson.decode(delayed[i]), tonumber(delayed[i + 1])
          local isLater = due > time + 3500000 and due < time + 3602000
          tell('delayed', isLater and 'later' or string.format('%.0f', due), job[1], job[2], job[3], (line(job[4])))
        end
        for _, e in ipairs(redis.call('XRANGE', 'fleet:{binance}:dead', '-', '+')) do
          local text, f = line(e[2])
          tell('dead', e[1], f.fleet_kind, f.fleet_reason, f.fleet_worker, text)
        end
        for _, pair in ipairs{{'marker', 'fleet:{binance}:job:'}, {'result', 'fleet:{binance}:result:'}} do
          for _, key in ipairs(redis.call('KEYS', pair[2] .. '*')) do
            tell(pair[1], string.sub(key, #pair[2] + 1), redis.call('GET', key))
          end
        end
        table.sort(out)
        return table.concat(out, '\\n')
        """
}

// MARK: - The order journal

/// What the journal of one order should say, and what may be true at the exchange.
struct JournalModel: Model {
    static let steps = 60
    private let redis: RedisConnection
    private let keys = Keys(.binance)
    private var journal: String { keys.order("o") }
    private var random: SeededGenerator

    private var state: String?
    private var outcome: String?
    private var owner = ""
    private var (isAcknowledged, isCancelWanted, isUncertain, isOver, isRecent, isPaused) = (
        false, false, false, false, false, false
    )
    private var (absent, sends, tries) = (0, 0, 0)

    /// Owners whose send may have been, or may still be, accepted, with the absences proven since it was over.
    private var open: [String: Int] = [:]
    private var hasEnded = false
    /// The journal's fields after the last call.
    private var found: [String] = []

    init(_ redis: RedisConnection, seed: UInt64) {
        self.redis = redis
        random = SeededGenerator(state: seed)
    }

    private var standing: [String] { [state ?? "", outcome ?? "", owner, isAcknowledged ? "77" : ""] }

    mutating func step() async throws {
        // Most orders end well and late, so that there is much before.
        switch random.below(32) {
        case 0..<8: try await begin(random.pick(["a", "b", "c"]) ?? "a")
        case 8..<10: try await note("released")
        case 10: try await note("acknowledged")
        case 11..<13: try await note("uncertain")
        case 13..<19: try await note("absent")
        case 19 where random.below(2) == 0: try await cancel()
        case 20 where random.below(2) == 0:
            try await end(
                random.pick(["accepted", "rejected", "failed", "expired", "unknown", "unknown"]) ?? "unknown",
                of: random.pick([nil, "", "a", "b", "c", owner, owner]) ?? nil)
        case 21: try await settle()
        case 22..<24: try await look()
        case 24..<27: try await pass("send_until_ms")
        case 27..<30: try await pass("absent_ms")
        case 30 where isPaused || random.below(3) == 0:
            isPaused.toggle()
            _ = try await redis.send([isPaused ? "SADD" : "SREM", .text(keys.paused), "submit_order"])
        default:
            // Another order, when this one is at its end.
            if hasEnded || state == "canceled" || isAcknowledged, random.below(3) == 0 {
                _ = try await redis.send(["FLUSHDB"])
                self = JournalModel(redis, seed: random.next())
            }
        }
    }

    mutating func end() async throws { try await look() }

    private mutating func begin(_ caller: String) async throws {
        let reply = try await call(
            "fleet_journal_begin", [journal, keys.paused],
            [.text(caller), .int(FunctionServer.hour), 600, "submit_order"]
        ).texts
        if reply == ["begun"] {
            // What must never be, said without the model's own state machine.
            let others = open.filter { $0.key != caller && $0.value < 2 }
            try expect(others.isEmpty, "sent by \(caller) while the send of \(others.keys) may be accepted")
            try expect(!hasEnded && !isAcknowledged && state != "canceled", "sent after its end: \(standing)")
            try expect(!isPaused, "sent while paused")
            try expect(!isUncertain || open[caller, default: 2] >= 2, "sent again while nobody knows")
        }
        let isFree = state == nil || state == "released"
        let isMine = state == "sending" && owner == caller && !isAcknowledged && !isUncertain
        let isAbsent = state == "sending" && !isAcknowledged && absent >= 2 && isOver
        if outcome != nil || !(isFree || isMine || isAbsent) {
            try expect(reply == standing, "\(reply), not \(standing)")
        } else if isCancelWanted {
            state = "canceled"
            try expect(reply == ["canceled", "", "", ""], "\(reply), not canceled")
        } else if isPaused {
            try expect(reply == ["paused"], "\(reply), not paused")
        } else {
            try expect(reply == ["begun"], "\(reply), not begun")
            (state, owner, absent, isOver, isUncertain) = ("sending", caller, 0, false, false)
            if !isMine { sends += 1 }
            tries += 1
            open = [caller: 0]
        }
        try compare()
    }

    private mutating func note(_ what: String) async throws {
        let caller = random.below(3) == 0 ? random.pick(["a", "b", "c"]) ?? "a" : owner
        // Of the last request, or of the one before it.
        let asked = random.below(4) == 0 ? max(0, tries - 1) : tries
        let reply = try await call(
            "fleet_journal_note", [journal], [.text(what), .text(caller), "77", .int(sends), .int(asked)]
        ).int
        var fits = state == "sending" && outcome == nil
        if what == "absent" {
            fits = fits && isOver && !isRecent && asked == tries
        } else {
            fits = fits && caller == owner && !(what == "released" && isAcknowledged)
        }
        try expect(reply == (fits ? 1 : 0), "\(what) of \(caller) answered \(reply ?? -1), not \(fits)")
        guard fits else { return try compare() }
        switch what {
        case "absent":
            absent += 1
            isRecent = true
            for caller in open.keys { open[caller, default: 0] += 1 }
            // Until a second is said to have passed, whatever the clock says.
            _ = try await redis.send(["HSET", .text(journal), "absent_ms", "9999999999999"])
        case "released":
            state = "released"
            open[caller] = nil
        case "acknowledged": isAcknowledged = true
        default: isUncertain = true
        }
        try compare()
    }

    private mutating func cancel() async throws {
        let reply = Array(try await call("fleet_journal_cancel", [journal], [600]).texts.prefix(4))
        if outcome == nil || state == "failed" { isCancelWanted = true }
        if outcome == nil {
            if state == nil || state == "released" { state = "canceled" }
        }
        try expect(reply == standing, "cancel answered \(reply), not \(standing)")
        try compare()
    }

    /// Of the send of one owner, of any (""), or with nil where no send is under way.
    private mutating func end(_ ending: String, of caller: String?) async throws {
        let reply = try await call(
            "fleet_journal_end", [journal],
            [.text(ending), .text("{\(ending)}"), 600, caller == nil ? "1" : "", .text(caller ?? "")]
        ).text
        var expected = outcome ?? ""
        let isKnown = outcome != nil && (state != "unknown" || ending == "unknown")
        let isUnderWay = caller == nil && (state == "sending" || state == "unknown")
        let isOthers = ending != "accepted" && caller.map { ![$0, ""].contains(owner) && $0 != "" } ?? false
        let isPrevented = state == "canceled" && ending != "accepted"
        if !isKnown, !isUnderWay, !isOthers, !isPrevented {
            expected = "{\(ending)}"
            (state, outcome, hasEnded) = (ending, expected, true)
        }
        try expect(reply == expected, "end of \(caller ?? "no send") answered \(reply ?? ""), not \(expected)")
        try compare()
    }

    private mutating func settle() async throws {
        let reply = try await call(
            "fleet_journal_settle", [journal, keys.result("o")], ["accepted", "{settled}", "{}", 600, "me"]
        ).text
        try expect(reply == (state == "unknown" ? "settled" : state ?? ""), "settle answered \(reply ?? "")")
        if state == "unknown" { (state, outcome) = ("accepted", "{settled}") }
        try compare()
    }

    private mutating func look() async throws {
        let reply = try await call("fleet_journal_read", [journal], []).texts
        if state == nil { return try expect(reply.isEmpty, "\(reply), not nothing") }
        try expect(Array(reply.prefix(4)) == standing, "\(reply), not \(standing)")
        try expect(reply[6] == (isCancelWanted ? "1" : ""), "cancel wanted: \(reply)")
        if sends > 0 { try expect((Int(reply[4]) ?? -1 > 0) != isOver, "wait of \(reply), over: \(isOver)") }
    }

    /// Lets time pass one of the journal's times.
    private mutating func pass(_ time: String) async throws {
        guard try await redis.send(["HEXISTS", .text(journal), .text(time)]).int == 1 else { return }
        _ = try await redis.send(["HSET", .text(journal), .text(time), 1])
        if time == "absent_ms" { isRecent = false } else { isOver = true }
    }

    private mutating func call(
        _ function: String, _ names: [String], _ arguments: [RedisArgument]
    ) async throws -> RedisValue {
        let head: [RedisArgument] = ["FCALL", .text(function), .int(names.count)]
        let look = ["state", "outcome", "owner", "exchange_order_id", "absent", "sends"]
        let replies = await redis.pipeline([
            RedisCommand(head + names.map(RedisArgument.text) + arguments), ["HMGET", .text(journal)] + look,
        ])
        found = try replies[1].get().array?.map { $0.text ?? "" } ?? []
        return try replies[0].get()
    }

    private func compare() throws {
        let count = sends > 0 ? ["\(absent)", "\(sends)"] : ["", ""]
        try expect(found == standing + count, "journal \(found), not \(standing + count)")
    }

    private func expect(_ holds: Bool, _ sentence: String) throws {
        guard holds else { throw Violation(sentence) }
    }
}
