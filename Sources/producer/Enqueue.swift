internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis

struct Enqueue: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Enqueue jobs from JSON lines.",
        discussion: """
            A line is one job, its fields as text or whole numbers:
              {"exchange":"binance","kind":"fetch_ticker","symbol":"BTC/USDT","max_age_ms":0}
            Lines that are no job, whose id is there already or whose stream is full are refused with their number
            and the reason, and the others enqueued.
            """)
    @Argument(help: "A file; - or nothing: standard input.") var file = "-"

    func run() async throws {
        if file != "-" {
            // The file takes the place of standard input, which is read line by line.
            let descriptor = open(file, O_RDONLY)
            guard descriptor >= 0, dup2(descriptor, STDIN_FILENO) >= 0 else {
                throw ValidationError("file '\(file)': expected a file that can be read")
            }
        }
        let size = file == "-" ? nil : try? FileManager.default.attributesOfItem(atPath: file)[.size] as? Int
        let most = try maxWaiting()
        let redis = try await openRedis()
        try await FunctionLibrary.load(into: redis)
        var (number, sent, refused, read) = (0, 0, 0, 0)
        var batch: [(line: Int, command: RedisCommand)] = []
        func flush() async {
            for (reply, entry) in zip(await redis.pipeline(batch.map { $0.command }, timeout: .seconds(30)), batch) {
                if let reason = reply.error?.message ?? duplicate(reply).map({ "the id is there already: \($0)" }) {
                    refused += 1
                    complain("line \(entry.line): \(reason)")
                } else {
                    sent += 1
                }
            }
            batch = []
            progress(sent, refused, size.map { Double(read) / Double(max(1, $0)) })
        }
        while let line = readLine() {
            number += 1
            read += line.utf8.count + 1
            guard !line.allSatisfy(\.isWhitespace) else { continue }
            do throws(Refusal) {
                batch.append((number, try Self.command(line, most)))
            } catch {
                refused += 1
                complain("line \(number): \(error.message)")
            }
            if batch.count == 500 { await flush() }
        }
        await flush()
        if isatty(STDERR_FILENO) == 1 { FileHandle.standardError.write(Data("\n".utf8)) }
        print("\(sent) enqueued, \(refused) refused")
        if refused > 0 { throw ExitCode(1) }
    }

    private static func command(_ line: String, _ most: Int) throws(Refusal) -> RedisCommand {
        func refuse(_ message: String) -> Refusal { Refusal(code: "malformed_job", message) }
        guard let object = (try? JSONSerialization.jsonObject(with: Data(line.utf8))) as? [String: Any] else {
            throw refuse("not a JSON object")
        }
        var fields: [(String, String)] = []
        for (name, value) in object.sorted(by: { $0.key < $1.key }) where name != "exchange" && name != "kind" {
            guard let text = value as? String ?? (value as? Int64).map(String.init) else {
                throw refuse("\(name): expected text or a whole number (decimals as text)")
            }
            fields.append((name, text))
        }
        let exchanges = Exchange.allCases.map(\.rawValue).joined(separator: ", ")
        guard let exchange = (object["exchange"] as? String).flatMap(Exchange.init) else {
            throw refuse("exchange: '\(object["exchange"] ?? "")'; expected \(exchanges)")
        }
        guard let kind = (object["kind"] as? String).flatMap(Kind.init) else {
            throw refuse(
                "kind: '\(object["kind"] ?? "")'; expected \(Kind.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        if let sentence = refusal(exchange, kind, fields) { throw refuse(sentence) }
        return enqueue(exchange, kind, fields, most: most)
    }

    /// A bar on a terminal; nothing where the error output is a file.
    private func progress(_ sent: Int, _ refused: Int, _ part: Double?) {
        guard isatty(STDERR_FILENO) == 1 else { return }
        let filled = Int((part ?? 0) * 40)
        let bar = String(repeating: "=", count: min(40, filled)) + String(repeating: " ", count: max(0, 40 - filled))
        let text = "\r" + (part == nil ? "" : "[\(bar)] ") + "\(sent) enqueued, \(refused) refused"
        FileHandle.standardError.write(Data(text.utf8))
    }
}
