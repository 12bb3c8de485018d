internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import NIOPosix
internal import Redis

/// A connection to the Redis of `REDIS_URL`. - Throws: exit code 1 (64: the address) after a sentence that says what is
/// wrong.
func openRedis() async throws -> RedisClient {
    do throws(RedisError) {
        let url = try RedisURL(ProcessInfo.processInfo.environment["REDIS_URL"] ?? "redis://127.0.0.1:6379")
        let (changes, told) = AsyncStream.makeStream(of: RedisClient.Change.self)
        let redis = RedisClient(url: url, loop: MultiThreadedEventLoopGroup.singleton.next(), name: "producer") {
            told.yield($0)
        }
        Task { await redis.run() }
        for await change in changes {
            if case .lost(let error) = change { throw error }
            break
        }
        try? await redis.connected()
        return redis
    } catch {
        complain(error.message)
        throw ExitCode(error.code == .invalidURL ? 64 : 1)
    }
}

func complain(_ text: String) { FileHandle.standardError.write(Data("producer: \(text)\n".utf8)) }

/// The sentence a worker would refuse the job with; nil: it is well formed.
func refusal(_ exchange: Exchange, _ kind: Kind, _ fields: [(String, String)]) -> String? {
    let values = fields.flatMap { [RedisValue.bytes(Array($0.0.utf8)), .bytes(Array($0.1.utf8))] }
    if case .malformed(let sentence) = Job(exchange: exchange, kind: kind, entryId: "0-0", fields: values).work {
        return sentence
    }
    return nil
}

/// The most entries a stream may have when a job comes. - Throws: exit code 64 for a limit that is none.
func maxWaiting() throws -> Int {
    let text = ProcessInfo.processInfo.environment["FLEET_MAX_WAITING"] ?? ""
    guard let number = text.isEmpty ? 1_000_000 : Int(text), (1...1_000_000_000).contains(number) else {
        throw ValidationError("FLEET_MAX_WAITING='\(text)': expected a whole number from 1 to 1000000000")
    }
    return number
}

/// The call that adds a job, its id among the fields where it has one. Times are unix milliseconds and milliseconds;
/// 0 stands for none. It needs the function library.
func enqueue(
    _ exchange: Exchange, _ kind: Kind, _ fields: [(String, String)], most: Int, dueAt: Int = 0, wait: Int = 0,
    every: Int = 0
) -> RedisCommand {
    let keys = Keys(exchange)
    let id = fields.last { $0.0 == "id" }?.1 ?? ""
    let head: RedisCommand = [
        "FCALL", "fleet_enqueue", 4, .text(keys.jobs(kind)), .text(keys.delayed), .text(keys.marker(id)),
        .text(keys.result(id)), .text(Keys.group), .text(kind.rawValue), .text(id), .int(most), .int(dueAt),
        .int(wait), .int(every),
    ]
    return head + fields.filter { $0.0 != "id" }.flatMap { [$0.0, $0.1] }
}

/// Where the job stands that has the id already, by the answer of `fleet_enqueue`; nil: it was taken.
func duplicate(_ reply: RedisValue) -> String? {
    reply.array?.first?.text == "duplicate" ? reply.array?.last?.text : nil
}

/// Names and values of a stream entry or a hash, in their order.
func pairs(_ reply: RedisValue?) -> [(name: String, value: String)] {
    let texts = reply?.array?.map { $0.text ?? "" } ?? []
    return stride(from: 0, to: texts.count - 1, by: 2).map { (texts[$0], texts[$0 + 1]) }
}

func object(_ json: String?) -> [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data((json ?? "").utf8))) as? [String: Any] ?? [:]
}

func text(_ object: [String: Any]) -> String {
    let options: JSONSerialization.WritingOptions = [.sortedKeys, .withoutEscapingSlashes]
    let data = try? JSONSerialization.data(withJSONObject: object, options: options)
    return String(decoding: data ?? Data(), as: UTF8.self)
}

/// Prints objects as one JSON array, one a line, or some of their members as a table: times (ms) in words, `-` for
/// what is not there.
func show(_ objects: [[String: Any]], _ columns: [String], asJSON: Bool) {
    if asJSON { return print("[" + objects.map(text).joined(separator: ",\n") + "]") }
    let rows = objects.map { object in
        columns.map { name in
            switch object[name] {
            case let ms as Int where name.hasSuffix("_ms"): span(ms)
            case let flag as Bool: flag ? "yes" : "-"
            case nil, is NSNull: "-"
            case let value?: "\(value)"
            }
        }
    }
    print(table([columns.map { $0.replacing("_ms", with: "").replacing("_", with: " ") }] + rows))
}

/// A length of time on the command line: 90s, 5m, 2h, 1d; a plain number is seconds. At most a year.
struct Span: ExpressibleByArgument {
    let ms: Int

    init?(argument: String) {
        let unit = argument.last.flatMap { ["s": 1.0, "m": 60, "h": 3600, "d": 86_400][$0] }
        guard let number = Double(unit == nil ? argument : String(argument.dropLast())),
            (0.001...31_536_000).contains(number * (unit ?? 1))
        else { return nil }
        ms = Int(number * (unit ?? 1) * 1000)
    }
}

/// A length of time (ms) by its two largest units: `1h 5m`, `30s`.
func span(_ ms: Int) -> String {
    let units = Duration.UnitsFormatStyle.units(
        allowed: [.days, .hours, .minutes, .seconds], width: .narrow, maximumUnitCount: 2,
        fractionalPart: .hide(rounded: .down))
    return Duration.milliseconds(ms).formatted(units.locale(Locale(identifier: "en_US")))
}

/// A time (unix ms) in UTC: `2026-12-01T08:00:00.250Z`.
func utc(_ ms: Int) -> String {
    let seconds = Date(timeIntervalSince1970: Double(ms / 1000)).formatted(.iso8601)
    return seconds.dropLast() + String(format: ".%03dZ", ms % 1000)
}

/// Prints a result, as it is or as a table. - Throws: exit code 1 when the job did not end `ok`.
func show(_ result: String, asJSON: Bool) throws {
    let object = object(result)
    if asJSON {
        print(result)
    } else {
        let error = object["error"] as? [String: Any] ?? [:]
        var rows = ["id", "exchange", "kind", "status", "source"].compactMap { name in
            object[name].map { [name, "\($0)"] }
        }
        rows += ["code", "message", "exchange_code"].compactMap { name in error[name].map { [name, "\($0)"] } }
        for (name, value) in (object["data"] as? [String: Any] ?? [:]).sorted(by: { $0.key < $1.key }) {
            guard let failures = value as? [String: Any] else {
                rows.append([name, "\(value)"])
                continue
            }
            rows += failures.sorted { $0.key < $1.key }.map { ["\(name) \($0.key)", "\($0.value)"] }
        }
        if let finished = object["finished_ms"] as? Int, let enqueued = object["enqueued_ms"] as? Int {
            rows.append(["took", "\(finished - enqueued) ms"])
        }
        print(table(aligned(rows)))
    }
    if object["status"] as? String != "ok" { throw ExitCode(1) }
}

/// Shifts the plain decimals of the second column so that their points stand below each other.
private func aligned(_ rows: [[String]]) -> [[String]] {
    let whole = { (text: String) -> Int? in
        text.allSatisfy { $0.isASCII && $0.isNumber || $0 == "." } && text.contains(".")
            ? text.prefix { $0 != "." }.count : nil
    }
    let width = rows.compactMap { whole($0[1]) }.max() ?? 0
    return rows.map { [$0[0], String(repeating: " ", count: whole($0[1]).map { width - $0 } ?? 0) + $0[1]] }
}

/// Rows as columns two spaces apart, each as wide as its widest cell.
func table(_ rows: [[String]]) -> String {
    let count = rows.map(\.count).max() ?? 0
    let widths = (0..<count).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
        let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(separator: "  ")
        return String(cells.reversed().drop { $0 == " " }.reversed())
    }.joined(separator: "\n")
}
