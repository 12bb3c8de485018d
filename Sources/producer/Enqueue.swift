internal import ArgumentParser
internal import Exchanges
internal import Fleet
internal import Foundation
internal import Redis
internal import Synchronization

/// What became of the lines so far.
private struct Account: CustomStringConvertible {
    var (sent, refused, last) = (0, 0, 0)
    /// Those that Redis was given and has not answered.
    var open: ClosedRange<Int>?

    var counts: String { "\(sent) enqueued, \(refused) refused" }
    var description: String {
        let doubt = open.map { "; lines \($0.lowerBound) to \($0.upperBound) may be enqueued or not" } ?? ""
        return "\(counts)\(doubt); go on from line \(last + 1)"
    }
}

struct Enqueue: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Enqueue jobs from JSON lines.",
        discussion: """
            A line is one job, its fields as text or whole numbers:
              {"exchange":"binance","kind":"fetch_ticker","symbol":"BTC/USDT","max_age_ms":0}
            Lines that are no job, whose id is there already or whose stream is full are refused with their number
            and the reason, and the others enqueued. A signal and a lost connection end it with the line to go on from;
            lines in doubt can be given again where they have ids.
            """)
    @Argument(help: "A file; - or nothing: standard input.") var file = "-"

    func run() async throws {
        // The file takes the place of standard input.
        let isOpen = file == "-" || dup2(open(file, O_RDONLY), STDIN_FILENO) >= 0
        // Reading nothing fails on a directory, which can be opened.
        guard isOpen, read(STDIN_FILENO, nil, 0) == 0 else {
            throw ValidationError("file '\(file)': expected a file that can be read")
        }
        let size = file == "-" ? nil : try? FileManager.default.attributesOfItem(atPath: file)[.size] as? Int
        let most = try settings().maxWaiting
        let redis = try await openRedis()
        try await FunctionLibrary.load(into: redis)
        var (account, bytes) = (Account(), 0)
        func refuse(_ line: Int, _ reason: String) {
            account.refused += 1
            complain("line \(line): \(reason)")
        }
        // Nothing else could end a read or an answer that is waited for.
        let known = Mutex(account)
        let signals = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler {
                // Holding it, so that no line is sent meanwhile.
                known.withLock { account in
                    endBar()
                    Producer.exit(withError: Failure("interrupted: \(account)"))
                }
            }
            source.resume()
            return source
        }
        defer { for source in signals { source.cancel() } }
        // One read is one batch: some hundred lines of a file, and of a pipe what is there.
        let newline = UInt8(ascii: "\n")
        var (buffer, rest) = ([UInt8](repeating: 0, count: 65_536), [UInt8]())
        var isAtEnd = false
        while !isAtEnd {
            let count = read(STDIN_FILENO, &buffer, buffer.count)
            guard count >= 0 else { throw Failure("\(String(cString: strerror(errno))): \(account)") }
            isAtEnd = count == 0
            bytes += count
            rest += buffer[..<count]
            guard isAtEnd || buffer[..<count].contains(newline) else { continue }
            var lines = rest.split(separator: newline, omittingEmptySubsequences: false)
            // Behind the last line break is the beginning of a line; at the end of the input, a line.
            rest = isAtEnd ? [] : Array(lines.removeLast())
            var batch: [(line: Int, command: RedisCommand)] = []
            for line in lines.map({ String(decoding: $0, as: UTF8.self) }) {
                account.last += 1
                guard !line.allSatisfy(\.isWhitespace) else { continue }
                do throws(ValidationError) {
                    batch.append((account.last, try Self.command(line, most)))
                } catch {
                    refuse(account.last, error.message)
                }
            }
            account.open = batch.first.map { $0.line...account.last }
            known.withLock { $0 = account }
            for (reply, entry) in zip(await redis.pipeline(batch.map(\.command), timeout: .seconds(30)), batch) {
                if let error = reply.error {
                    guard case .server = error.code else {
                        account.open = entry.line...account.last
                        endBar()
                        throw Failure("\(error): \(account)")
                    }
                    refuse(entry.line, error.message)
                } else if let place = duplicate(reply) {
                    refuse(entry.line, "the id is there already: \(place)")
                } else {
                    account.sent += 1
                }
            }
            account.open = nil
            known.withLock {
                $0 = account
                progress(account.counts, size.map { Double(bytes) / Double(max(1, $0)) })
            }
        }
        endBar()
        print(account.counts)
        if account.refused > 0 { throw ExitCode(1) }
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
