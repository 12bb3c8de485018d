import Exchanges
import NIOPosix
import Redis
import TestSupport
import Testing

@testable import Fleet

/// A redis-server with the function library, and the words for calling it. The streams are Binance's.
final class FunctionServer: Sendable {
    let server: RedisServer
    let client: RedisClient
    let keys = Keys(.binance)
    private let keepingConnected: Task<Void, Never>
    /// An hour in milliseconds: a wait or a lease that does not end while a test runs.
    static let hour = 3_600_000

    /// Starts it and loads the library; with `streams` makes the job streams and their groups.
    init(_ options: [String] = [], streams: Bool = true) async throws {
        server = try await RedisServer(options)
        let client = RedisClient(
            url: try RedisURL(server.url), loop: MultiThreadedEventLoopGroup.singleton.next(), name: "test")
        self.client = client
        keepingConnected = Task { await client.run() }
        try await client.connected()
        try await FunctionLibrary.load(into: client)
        guard streams else { return }
        for kind in Kind.allCases { try await redis("XGROUP", "CREATE", keys.jobs(kind), Keys.group, "0", "MKSTREAM") }
    }

    deinit { keepingConnected.cancel() }

    /// Any command of text arguments.
    @discardableResult
    func redis(_ words: String...) async throws -> RedisValue {
        try await client.send(RedisCommand(words.map(RedisArgument.text)))
    }

    @discardableResult
    func call(_ function: String, _ names: [String], _ arguments: [RedisArgument]) async throws -> RedisValue {
        try await FunctionLibrary.call(function, names, arguments, on: client)
    }

    // MARK: - The functions, with what most tests pass

    func enqueue(
        _ id: String = "", kind: Kind = .fetchTicker, most: Int = 1000, due: Int = 0, wait: Int = 0, every: Int = 0,
        _ fields: [RedisArgument] = ["symbol", "BTC/USDT"]
    ) async throws -> [String] {
        let arguments: [RedisArgument] = [
            .text(Keys.group), .text(kind.rawValue), .text(id), .int(most), .int(due), .int(wait), .int(every),
        ]
        let names = [keys.jobs(kind), keys.delayed, keys.marker(id), keys.result(id)]
        return try await call("fleet_enqueue", names, arguments + fields).texts
    }

    func finish(
        _ entry: String, by consumer: String = "a", id: String? = nil, ttl: Int = 60, reply: String? = nil
    ) async throws -> Int? {
        let names = [keys.jobs(.fetchTicker), keys.result(id ?? entry), keys.marker(id ?? entry)]
        return try await call(
            "fleet_finish", names + (reply.map { [$0] } ?? []),
            [.text(Keys.group), .text(consumer), .text(entry), "{}", .int(ttl), 60]
        ).int
    }

    func bury(
        _ entry: String, by consumer: String = "a", id: String? = nil, ttl: Int = 60, line: String = "",
        attempt: Int = 1
    ) async throws -> Int? {
        try await call(
            "fleet_bury", [keys.jobs(.fetchTicker), keys.result(id ?? entry), keys.marker(id ?? entry), keys.dead],
            [
                .text(Keys.group), .text(consumer), .text(entry), "{}", .int(ttl), 60, "fetch_ticker",
                .text(id ?? entry), "attempts", .text(line), 77, .int(attempt),
            ]
        ).int
    }

    func retry(
        _ entry: String, by consumer: String = "a", id: String? = nil, wait: Int = FunctionServer.hour,
        attempt: Int = 2, line: String = "", counts: Bool = true
    ) async throws -> Int? {
        try await call(
            "fleet_retry", [keys.jobs(.fetchTicker), keys.delayed, keys.marker(id ?? entry), keys.retries],
            [
                .text(Keys.group), .text(consumer), .text(entry), "fetch_ticker", .text(id ?? entry), .int(wait),
                .int(attempt), 77, .text(line), counts ? 1 : 0,
            ]
        ).int
    }

    /// - Returns: how many were moved, and how long until the next is due.
    func promote(most: Int = 100) async throws -> [Int] {
        try await call(
            "fleet_promote", [keys.delayed] + Kind.allCases.map(keys.jobs),
            [.int(most), .text(keys.markerPrefix)] + Kind.allCases.map { .text($0.rawValue) }
        ).array?.compactMap(\.int) ?? []
    }

    func claim(
        by consumer: String = "b", lease: Int = 0, cursor: String = "0-0", most: Int = 100
    ) async throws -> (cursor: String, entries: [Claimed]) {
        let reply =
            try await call(
                "fleet_claim", [keys.jobs(.fetchTicker)],
                [.text(Keys.group), .text(consumer), .int(lease), .text(cursor), .int(most)]
            ).array ?? []
        return (reply.first?.text ?? "", reply.last?.array?.compactMap(Claimed.init) ?? [])
    }

    struct Claimed {
        let entry: String
        let fields: [RedisValue]
        let deliveries: Int

        init?(_ value: RedisValue) {
            guard let parts = value.array, parts.count == 3, let entry = parts[0].text, let count = parts[2].int
            else { return nil }
            (self.entry, fields, deliveries) = (entry, parts[1].array ?? [], count)
        }
    }

    // MARK: - Looking and acting

    /// Reads one ticker job as the consumer. - Returns: its entry id.
    func read(by consumer: String = "a", most: Int = 1) async throws -> [String] {
        let reply = try await redis(
            "XREADGROUP", "GROUP", Keys.group, consumer, "COUNT", "\(most)", "STREAMS", keys.jobs(.fetchTicker), ">")
        return reply.array?.first?.array?.last?.array?.compactMap { $0.array?.first?.text } ?? []
    }

    /// Adds a job as any program would and reads it as the consumer.
    func delivered(by consumer: String = "a", _ fields: [RedisArgument] = ["symbol", "X"]) async throws -> String {
        let add: [RedisArgument] = ["XADD", .text(keys.jobs(.fetchTicker)), "*"]
        _ = try await client.send(RedisCommand(add + fields))
        return try #require(try await read(by: consumer).first)
    }

    /// Gives a delivery to another consumer, as after a pause longer than the lease.
    func steal(_ entry: String, for consumer: String = "thief") async throws {
        try await redis("XCLAIM", keys.jobs(.fetchTicker), Keys.group, consumer, "0", entry)
    }

    /// The fields of a stream's entries in order.
    func entries(_ stream: String) async throws -> [[RedisValue]] {
        try await redis("XRANGE", stream, "-", "+").array?.compactMap { $0.array?.last?.array } ?? []
    }

    /// Every key with what it holds: two equal ones mean that nothing was changed.
    func everything() async throws -> [String: RedisValue] {
        var all: [String: RedisValue] = [:]
        for name in try await redis("KEYS", "*").texts { all[name] = try await redis("DUMP", name) }
        return all
    }
}

extension RedisValue {
    /// The texts of an array, a number as its digits.
    var texts: [String] { array?.compactMap { $0.text ?? $0.int.map(String.init) } ?? [] }
}

/// The value of a field in an entry.
func field(_ name: String, of fields: [RedisValue]) -> String? {
    stride(from: 0, to: fields.count - 1, by: 2).first { fields[$0].text == name }.flatMap { fields[$0 + 1].text }
}
