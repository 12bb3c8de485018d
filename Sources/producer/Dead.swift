internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

/// A job that was given up: an entry of a dead stream.
struct DeadJob {
    let exchange: Exchange
    let entry: String
    let fields: [(name: String, value: String)]

    init?(_ exchange: Exchange, _ entry: RedisValue) {
        guard let id = entry.array?.first?.text else { return nil }
        (self.exchange, self.entry, fields) = (exchange, id, pairs(entry.array?.last))
    }

    func field(_ name: String) -> String { fields.first { $0.name == name }?.value ?? "" }
    var id: String { field("id") }
    var kind: String { field("fleet_kind") }
    var diedMs: Int { Int(entry.prefix { $0 != "-" }) ?? 0 }
    var ageMs: Int { max(0, Int(wallClockMs()) - diedMs) }
    var json: [String: Any] {
        // What its caller gave it.
        let own = fields.filter { $0.name != "id" && !$0.name.hasPrefix("fleet_") }
        return [
            "exchange": exchange.rawValue, "entry": entry, "id": id, "kind": kind, "reason": field("fleet_reason"),
            "attempts": Int(field("fleet_attempt")) ?? 0, "age_ms": ageMs, "last_worker": field("fleet_worker"),
            "enqueued_ms": Int(field("fleet_enqueued_ms")) ?? 0, "died_ms": diedMs,
            "fields": Dictionary(own.map { ($0.name, $0.value) }) { $1 },
            "history": field("fleet_history").split(separator: "\n").map(String.init),
        ]
    }

    /// Hands over the dead jobs of an exchange, oldest first, a page at a time, until `body` returns false. Jobs that
    /// die meanwhile are left out, so that replaying what fails at once has an end.
    static func pages(
        of exchange: Exchange, on redis: RedisClient, _ body: ([DeadJob]) async throws -> Bool
    ) async throws {
        let key = RedisArgument.text(Keys(exchange).dead)
        guard let last = try await redis.send(["XREVRANGE", key, "+", "-", "COUNT", 1]).array?.first,
            let end = last.array?.first?.text
        else { return }
        var start = "-"
        while true {
            let found = try await redis.send(["XRANGE", key, .text(start), .text(end), "COUNT", 500]).array ?? []
            let jobs = found.compactMap { DeadJob(exchange, $0) }
            guard let last = jobs.last, try await body(jobs) else { return }
            start = "(" + last.entry
        }
    }
}

struct Dead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Jobs that were given up: look at them, run them again, or delete them.",
        subcommands: [ListDead.self, ShowDead.self, ReplayDead.self, PurgeDead.self])
}

/// Which dead jobs are meant.
struct DeadFilter: ParsableArguments {
    @Option(help: "Only of this exchange.") var exchange: Exchange?
    @Option(help: "Only of this kind, e.g. submit_order.") var kind: Kind?
    @Option(help: "Only those given up for this reason, e.g. attempts.") var reason: String?
    @Option(help: "Only those that died longer ago than 90s, 5m, 2h, 1d.") var olderThan: Span?
    @Flag(help: "Print JSON.") var json = false

    var isEmpty: Bool { exchange == nil && kind == nil && reason == nil && olderThan == nil }
    var exchanges: [Exchange] { exchange.map { [$0] } ?? Exchange.allCases }

    func takes(_ job: DeadJob) -> Bool {
        (kind.map { $0.rawValue == job.kind } ?? true) && (reason.map { $0 == job.field("fleet_reason") } ?? true)
            && (olderThan.map { job.ageMs > $0.ms } ?? true)
    }
}

struct ListDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List them, oldest first.")
    @OptionGroup var filter: DeadFilter
    @Option(help: "Most jobs to list.") var limit = 100

    func run() async throws {
        let redis = try await openRedis()
        var found: [DeadJob] = []
        for exchange in filter.exchanges {
            try await DeadJob.pages(of: exchange, on: redis) { jobs in
                found += jobs.filter(filter.takes)
                return found.count < limit
            }
        }
        let columns = ["exchange", "entry", "id", "kind", "reason", "attempts", "age_ms", "last_worker"]
        show(found.prefix(max(0, limit)).map(\.json), columns, asJSON: filter.json)
    }
}

struct ShowDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show all of a dead job: its fields and what went wrong, a line each.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "Its entry id or job id.") var id: String
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let redis = try await openRedis()
        var found: DeadJob?
        try await DeadJob.pages(of: exchange, on: redis) { jobs in
            found = jobs.first { $0.entry == id || $0.id == id }
            return found == nil
        }
        guard let job = found else {
            complain("no dead job '\(id)' on \(exchange)")
            throw ExitCode(1)
        }
        if json { return print(text(job.json)) }
        let times = [("died", utc(job.diedMs)), ("enqueued", Int(job.field("fleet_enqueued_ms")).map(utc) ?? "-")]
        let plain = job.fields.filter { !["fleet_history", "fleet_enqueued_ms"].contains($0.name) }
            .map { ($0.name.replacing("fleet_", with: ""), $0.value) }
        let history = job.field("fleet_history").split(separator: "\n").map { line in
            // `<unix ms> <worker> attempt <number>: <what went wrong>`
            let ms = Int(line.prefix { $0.isNumber })
            return ("history", (ms.map(utc) ?? "") + (ms == nil ? line : line.drop { $0.isNumber }))
        }
        let head = [("exchange", exchange.rawValue), ("entry", job.entry)]
        print(table((head + plain + times + history).map { [$0, $1] }))
    }
}

/// What replay and purge have in common.
struct DeadChange: ParsableArguments {
    @Argument(help: "Entry ids or job ids; none: all that the options leave.") var ids: [String] = []
    @OptionGroup var filter: DeadFilter
    @Flag(help: "All dead jobs; required where neither ids nor options choose.") var all = false
    @Flag(help: "Only say what would be done.") var dryRun = false

    func validate() throws {
        if ids.isEmpty, filter.isEmpty, !all {
            throw ValidationError(
                "expected ids, --exchange, --kind, --reason, --older-than, or --all for all dead jobs")
        }
    }

    /// Does it a page at a time and says to how many; `change` returns how many of its jobs it found still there.
    func run(_ done: String, _ change: (RedisClient, [DeadJob]) async throws -> Int) async throws {
        let redis = try await openRedis()
        var (chosen, count, missing) = (0, 0, Set(ids))
        for exchange in filter.exchanges {
            try await DeadJob.pages(of: exchange, on: redis) { page in
                let jobs = page.filter { job in
                    filter.takes(job) && (ids.isEmpty || ids.contains(job.entry) || ids.contains(job.id))
                }
                missing.subtract(jobs.flatMap { [$0.entry, $0.id] })
                if dryRun, !filter.json {
                    for job in jobs { print("\(job.exchange) \(job.entry) \(job.id) would be \(done)") }
                }
                chosen += jobs.count
                count += dryRun || jobs.isEmpty ? jobs.count : try await change(redis, jobs)
                return true
            }
        }
        print(filter.json ? text([done: count, "dry_run": dryRun]) : "\(count) \(dryRun ? "would be " : "")\(done)")
        for id in missing.sorted() { complain("no dead job '\(id)' among those chosen") }
        if !missing.isEmpty || count < chosen { throw ExitCode(1) }
    }
}

struct ReplayDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Run them again from their first attempt, with their history.")
    @OptionGroup var change: DeadChange

    func run() async throws {
        try await change.run("replayed") { redis, jobs in
            var count = 0
            for job in jobs {
                guard let kind = Kind(rawValue: job.kind) else {
                    complain("\(job.exchange) \(job.entry) is of the kind '\(job.kind)', which is not known here")
                    continue
                }
                let keys = Keys(job.exchange)
                do throws(RedisError) {
                    let entry = try await FunctionLibrary.call(
                        "fleet_replay",
                        [keys.dead, keys.jobs(kind), keys.marker(job.id), keys.result(job.id), keys.order(job.id)],
                        [.text(job.entry)], on: redis)
                    if entry.text?.isEmpty == false { count += 1 }
                } catch {
                    // One that cannot be replayed stays dead, and the others are replayed.
                    guard error.code == .server("DUPLICATE") else { throw error }
                    complain("\(job.exchange) \(job.entry) \(job.id) stays: \(error.message)")
                }
            }
            return count
        }
    }
}

struct PurgeDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "purge", abstract: "Delete them for good.")
    @OptionGroup var change: DeadChange

    func run() async throws {
        try await change.run("purged") { redis, jobs in
            try await redis.send(["XDEL", .text(Keys(jobs[0].exchange).dead)] + jobs.map(\.entry)).int ?? 0
        }
    }
}
