internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import NIOPosix
internal import Redis

/// One connection to the Redis of `REDIS_URL`. - Throws: exit code 1 after a sentence that says what is wrong.
func openRedis() async throws -> RedisConnection {
    do throws(RedisError) {
        let url = try RedisURL(ProcessInfo.processInfo.environment["REDIS_URL"] ?? "redis://127.0.0.1:6379")
        return try await RedisConnection.connect(
            to: url, on: MultiThreadedEventLoopGroup.singleton.next(), name: "producer")
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

func append(_ exchange: Exchange, _ kind: Kind, _ fields: [(String, String)]) -> RedisCommand {
    ["XADD", .text(Keys(exchange).jobs(kind)), "*"] + fields.flatMap { [$0.0, $0.1] }
}

/// Prints a result, as it is or as a table. - Throws: exit code 1 when the job did not end `ok`.
func show(_ result: String, asJSON: Bool) throws {
    let object = (try? JSONSerialization.jsonObject(with: Data(result.utf8))) as? [String: Any] ?? [:]
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
