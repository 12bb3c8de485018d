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

    init?(_ exchange: Exchange, _ value: RedisValue) {
        guard let entry = value.array?.first?.text else { return nil }
        (self.exchange, self.entry, fields) = (exchange, entry, pairs(value.array?.last))
    }

    func field(_ name: String) -> String { fields.first { $0.name == name }?.value ?? "" }
    func isNamed(_ name: String) -> Bool { entry == name || id == name }
    var id: String { field("id") }
    var kind: String { field("fleet_kind") }
    var reason: String { field("fleet_reason") }
    var history: [String] { field("fleet_history").split(separator: "\n").map(String.init) }
    var enqueuedMs: Int? { Int(field("fleet_enqueued_ms")) }
    var diedMs: Int { Int(entry.prefix { $0 != "-" }) ?? 0 }
    var ageMs: Int { max(0, Int(clock.now()) - diedMs) }
    var json: [String: Any] {
        // What its caller gave it.
        let own = fields.filter { $0.name != "id" && !$0.name.hasPrefix("fleet_") }
        return [
            "exchange": exchange.rawValue, "entry": entry, "id": id, "kind": kind, "reason": reason,
            "attempts": Int(field("fleet_attempt")) ?? 0, "age_ms": ageMs, "last_worker": field("fleet_worker"),
            "enqueued_ms": enqueuedMs ?? 0, "died_ms": diedMs, "history": history,
            "fields": Dictionary(own.map { ($0.name, $0.value) }) { $1 },
        ]
    }
}

/// Takes the dead jobs of the exchanges one after another, oldest first, read a page at a time. Those that die meanwhile
/// are left out, so that replaying what fails at once has an end.
func eachDeadJob(
    of exchanges: [Exchange], on redis: RedisConnection, _ take: (DeadJob) async throws -> Void
) async throws {
    for exchange in exchanges {
        let key = Keys(exchange).dead
        let newest = try await redis.look("XREVRANGE", key, "+", "-", "COUNT", 1).array?.first
        guard let end = newest?.array?.first?.text else { continue }
        var start = "-"
        while let page = try await redis.look("XRANGE", key, .text(start), .text(end), "COUNT", 500).array {
            let jobs = page.compactMap { DeadJob(exchange, $0) }
            for job in jobs { try await take(job) }
            guard let last = jobs.last else { break }
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

    func takes(_ job: DeadJob) -> Bool {
        job.kind == kind?.rawValue ?? job.kind && job.reason == reason ?? job.reason
            && job.ageMs > olderThan?.ms ?? -1
    }
}

struct ListDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List them, oldest first.")
    @OptionGroup var filter: DeadFilter
    @Option(help: "Most jobs to list.") var limit = 100

    func run() async throws {
        var found: [[String: Any]] = []
        try await eachDeadJob(of: exchanges(filter.exchange), on: openRedis()) { job in
            if found.count < limit, filter.takes(job) { found.append(job.json) }
        }
        let columns = ["exchange", "entry", "id", "kind", "reason", "attempts", "age_ms", "last_worker"]
        show(found, columns, asJSON: filter.json)
    }
}

struct ShowDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show all of a dead job: its fields and what went wrong, a line each.")
    @Argument(help: "binance, bybit or kraken.") var exchange: Exchange
    @Argument(help: "Its entry id or job id.") var id: String
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        var found: DeadJob?
        try await eachDeadJob(of: [exchange], on: openRedis()) { job in
            if found == nil, job.isNamed(id) { found = job }
        }
        guard let job = found else { throw Failure("no dead job '\(id)' on \(exchange)") }
        if json { return print(jsonText(job.json)) }
        let plain = job.fields.filter { !["fleet_history", "fleet_enqueued_ms"].contains($0.name) }
        let history = job.history.map { line in
            // `<unix ms> <worker> attempt <number>: <what went wrong>`
            let ms = line.prefix { $0.isNumber }
            return ["history", (Int(ms).map(utc) ?? String(ms)) + line.dropFirst(ms.count)]
        }
        let rows =
            [["exchange", exchange.rawValue], ["entry", job.entry]]
            + plain.map { [$0.name.replacing("fleet_", with: ""), $0.value] }
            + [["died", utc(job.diedMs)], ["enqueued", job.enqueuedMs.map(utc) ?? "-"]]
        print(table(rows + history))
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

    /// Does it and says to how many; `change` returns to how many it was done: 1, or 0 when the job was gone.
    func run(_ done: String, _ change: (RedisConnection, DeadJob) async throws -> Int) async throws {
        let redis = try await openRedis()
        var (chosen, count, missing) = (0, 0, Set(ids))
        try await eachDeadJob(of: exchanges(filter.exchange), on: redis) { job in
            guard filter.takes(job), ids.isEmpty || ids.contains(where: job.isNamed) else { return }
            missing.subtract([job.entry, job.id])
            chosen += 1
            if dryRun, !filter.json { print("\(job.exchange) \(job.entry) \(job.id) would be \(done)") }
            count += dryRun ? 1 : try await change(redis, job)
        }
        let summary = "\(count) \(dryRun ? "would be " : "")\(done)"
        print(filter.json ? jsonText([done: count, "dry_run": dryRun]) : summary)
        for id in missing.sorted() { complain("no dead job '\(id)' among those chosen") }
        if !missing.isEmpty || count < chosen { throw ExitCode(1) }
    }
}

struct ReplayDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Run them again from their first attempt, with their history.")
    @OptionGroup var change: DeadChange

    func run() async throws {
        try await change.run("replayed") { redis, job in
            guard let kind = Kind(rawValue: job.kind) else {
                complain("\(job.exchange) \(job.entry) is of the kind '\(job.kind)', which is not known here")
                return 0
            }
            let keys = Keys(job.exchange)
            do {
                let entry = try await FunctionLibrary.call(
                    "fleet_replay",
                    [keys.dead, keys.jobs(kind), keys.marker(job.id), keys.result(job.id), keys.order(job.id)],
                    [.text(job.entry)], on: redis)
                return entry.text?.isEmpty == false ? 1 : 0
            } catch let error as RedisError {
                // One that cannot be replayed stays dead, and the others are replayed.
                guard case .server = error.code else { throw error }
                complain("\(job.exchange) \(job.entry) \(job.id) stays: \(error.message)")
                return 0
            }
        }
    }
}

struct PurgeDead: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "purge", abstract: "Delete them for good.")
    @OptionGroup var change: DeadChange

    func run() async throws {
        try await change.run("purged") { redis, job in
            try await redis.send(["XDEL", .text(Keys(job.exchange).dead), .text(job.entry)]).int ?? 0
        }
    }
}
