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
            and the reason, and the others enqueued. A lost connection ends it with the lines in doubt, which can be given
            again where they have ids, and the one to go on from.
            """)
    @Argument(help: "A file; - or nothing: standard input.") var file = "-"

    func run() async throws {
        // The file takes the place of standard input. Reading nothing fails on a directory, which can be opened.
        guard file == "-" || dup2(open(file, O_RDONLY), STDIN_FILENO) >= 0, read(STDIN_FILENO, nil, 0) == 0 else {
            throw ValidationError("file '\(file)': expected a file that can be read")
        }
        let size = file == "-" ? nil : try? FileManager.default.attributesOfItem(atPath: file)[.size] as? Int
        let most = try settings().maxWaiting
        let redis = try await openRedis()
        try await FunctionLibrary.load(into: redis)
        var (sent, refused, last, bytes) = (0, 0, 0, 0)
        func counts() -> String { "\(sent) enqueued, \(refused) refused" }
        func refuse(_ line: Int, _ reason: String) {
            refused += 1
            complain("line \(line): \(reason)")
        }
        // One read is one batch: some hundred lines of a file, and of a pipe what is there.
        let newline = UInt8(ascii: "\n")
        var (buffer, rest, count) = ([UInt8](repeating: 0, count: 65_536), [UInt8](), 1)
        while count > 0 {
            count = read(STDIN_FILENO, &buffer, buffer.count)
            guard count >= 0 else { throw Failure("\(String(cString: strerror(errno))): \(counts())") }
            bytes += count
            // The end of the input ends a line too.
            let part = count == 0 ? [newline] : buffer[..<count]
            rest += part
            guard part.contains(newline) else { continue }
            var lines = rest.split(separator: newline, omittingEmptySubsequences: false)
            // The beginning of the next.
            rest = Array(lines.removeLast())
            var batch: [(line: Int, command: RedisCommand)] = []
            for line in lines.map({ String(decoding: $0, as: UTF8.self) }) {
                last += 1
                guard !line.allSatisfy(\.isWhitespace) else { continue }
                do throws(ValidationError) {
                    batch.append((last, try Self.command(line, most)))
                } catch {
                    refuse(last, error.message)
                }
            }
            for (reply, entry) in zip(await redis.pipeline(batch.map(\.command), timeout: .seconds(30)), batch) {
                if let error = reply.error {
                    guard case .server = error.code else {
                        endBar()
                        let doubt = "lines \(entry.line) to \(last) may be enqueued or not"
                        throw Failure("\(error): \(counts()); \(doubt); go on from line \(last + 1)")
                    }
                    refuse(entry.line, error.message)
                } else if let place = duplicate(reply) {
                    refuse(entry.line, "the id is there already: \(place)")
                } else {
                    sent += 1
                }
            }
            progress(counts(), size.map { Double(bytes) / Double(max(1, $0)) })
        }
        endBar()
        print(counts())
        if refused > 0 { throw ExitCode(1) }
    }

    private static func command(_ line: String, _ most: Int) throws(ValidationError) -> RedisCommand {
        guard let object = (try? JSONSerialization.jsonObject(with: Data(line.utf8))) as? [String: Any] else {
            throw ValidationError("not a JSON object")
        }
        func choice<Value: ExpressibleByArgument>(_ name: String) throws(ValidationError) -> Value {
            let found = object[name].map { $0 as? String ?? jsonText($0) } ?? ""
            if let value = Value(argument: found) { return value }
            throw ValidationError("\(name): '\(found)'; expected \(Value.allValueStrings.joined(separator: ", "))")
        }
        var fields: [(String, String?)] = []
        for (name, value) in object.sorted(by: { $0.key < $1.key }) where name != "exchange" && name != "kind" {
            // By its JSON, as a boolean would be a number too.
            guard let field = value as? String ?? Int64(jsonText(value)).map(String.init) else {
                throw ValidationError("\(name): \(jsonText(value)); expected text or a whole number (decimals as text)")
            }
            fields.append((name, field))
        }
        return try enqueue(choice("exchange"), choice("kind"), fields, most: most)
    }

    /// The counts and a bar on a terminal; nothing where the error output is a file.
    private func progress(_ counts: String, _ part: Double?) {
        guard isatty(STDERR_FILENO) == 1 else { return }
        let bar = part.map { String(repeating: "=", count: min(40, Int($0 * 40))) }
        let text = bar.map { "[" + $0.padding(toLength: 40, withPad: " ", startingAt: 0) + "] " } ?? ""
        tell("\r\(text)\(counts)")
    }

    private func endBar() { if isatty(STDERR_FILENO) == 1 { tell("\n") } }
}

/// The call of `fleet_enqueue` that adds a job, its id among the fields where it has one; fields without a value are
/// left out. `most` entries may be in the stream. Times are unix milliseconds and milliseconds; 0 stands for none.
/// - Throws: the sentence a worker would refuse the job with.
func enqueue(
    _ exchange: Exchange, _ kind: Kind, _ fields: [(String, String?)], most: Int, dueAt: Int = 0, wait: Int = 0,
    every: Int = 0
) throws(ValidationError) -> RedisCommand {
    let given = fields.compactMap { name, value in value.map { [name, $0] } }
    let values = given.joined().map { RedisValue.bytes(Array($0.utf8)) }
    let job = Job(exchange: exchange, kind: kind, entryId: "", fields: values)
    if case .malformed(let sentence) = job.work { throw ValidationError(sentence) }
    let keys = Keys(exchange)
    let head = [Keys.group, kind.rawValue, job.id] + [most, dueAt, wait, every].map(String.init)
    return FunctionLibrary.command(
        "fleet_enqueue", [keys.jobs(kind), keys.delayed, keys.marker(job.id), keys.result(job.id)],
        (head + given.filter { $0[0] != "id" }.joined()).map(RedisArgument.text))
}

/// Where the job stands that has the id already, by the answer of `fleet_enqueue`; nil: it was taken.
func duplicate(_ reply: RedisValue) -> String? {
    reply.array?.first?.text == "duplicate" ? reply.array?.last?.text : nil
}
