internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation
private import Synchronization

/// A private Redis without files, and the simulator and workers beside it. All of it ends with this process.
final class Rig {
    static let keys = Keys(.binance)
    static let stream = keys.jobs(.fetchTicker)
    /// A ticker as the contract has it.
    static let ticker =
        #"{"ask":"64005.86000000","base_volume":"10000.00000000","bid":"64002.66000000","change_percent":"1.0142","#
        + #""exchange_ms":1795364926919,"high":"65280.00000000","last":"64002.66000000","low":"62720.00000000","#
        + #""open":"63360.00000000","quote_volume":"640000000.00000000","received_ms":1795364926941,"#
        + #""symbol":"BTC/USDT"}"#

    private static let directory = NSTemporaryDirectory() + "bench-\(ProcessInfo.processInfo.processIdentifier)"
    /// Nil once the end has come: nothing is started any more.
    private static let children = Mutex<Set<pid_t>?>([])
    private static let signals: [Void] = [SIGINT, SIGTERM].map { number in
        // A handler, as what is ignored would be ignored by the children too.
        signal(number) { _ in }
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler {
            end()
            _ = source
            exit(128 + number)
        }
        source.resume()
    }

    let socket = Rig.directory + "/redis.sock"
    let redis: Wire
    private var simulatorURL: String?

    init() throws {
        _ = Self.signals
        // Redis may be gone before who still writes to it.
        signal(SIGPIPE) { _ in }
        // A thousand connections, here and in the simulator.
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        try FileManager.default.createDirectory(atPath: Self.directory, withIntermediateDirectories: true)
        let socket = socket
        try Self.start([
            "redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir",
            Self.directory,
        ])
        redis = try Self.eventually("redis-server starts") { try? Wire(socket) }
    }

    /// Ends every child and takes the files away. Returns to the first caller only: it decides how the process exits.
    static func end() {
        let last = children.withLock { children in
            defer { children = nil }
            return children
        }
        guard let last else { while true { sleep(1000) } }
        for pid in last { kill(pid, SIGKILL) }
        // Their parent gathers them; it must not be gone before.
        for _ in 0..<2000 where last.contains(where: { kill($0, 0) == 0 }) { usleep(1000) }
        try? FileManager.default.removeItem(atPath: directory)
    }

    static func eventually<Value>(_ what: String, _ look: () throws -> Value?) throws -> Value {
        for _ in 0..<20_000 {
            if let value = try look() { return value }
            usleep(1000)
        }
        throw NotMeasured("never happened: \(what)")
    }

    @discardableResult
    static func start(
        _ command: [String], _ environment: [String: String] = [:], output: Any = FileHandle.nullDevice
    ) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = command
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        process.environment = ["PATH": path].merging(environment) { $1 }
        (process.standardInput, process.standardOutput) = (FileHandle.nullDevice, output)
        process.standardError = FileHandle.nullDevice
        process.terminationHandler = { ended in children.withLock { _ = $0?.remove(ended.processIdentifier) } }
        // Under the lock: one that is started while the others are ended would outlive them.
        try children.withLock { children in
            guard children != nil else { throw NotMeasured("it was told to stop") }
            try process.run()
            children?.insert(process.processIdentifier)
        }
        return process
    }

    /// Runs a program to its end. - Returns: what it printed; nil when it failed or is not there.
    static func output(of command: [String]) throws -> String? {
        let pipe = Pipe()
        let process = try start(command, output: pipe)
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return process.terminationStatus == 0 ? String(decoding: data, as: UTF8.self) : nil
    }

    static func stop(_ processes: [Process]) {
        for process in processes { kill(process.processIdentifier, SIGKILL) }
        for process in processes { process.waitUntilExit() }
    }

    private static func program(_ name: String) -> String {
        (Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent().path ?? ".") + "/" + name
    }

    /// The simulator's address; it is started at the first call, without limits.
    func simulator() throws -> String {
        if let simulatorURL { return simulatorURL }
        let pipe = Pipe()
        try Self.start([Self.program("exchange-simulator"), "--port", "0", "--limits", "off"], output: pipe)
        let line = String(decoding: pipe.fileHandleForReading.availableData, as: UTF8.self)
        guard let match = line.firstMatch(of: /listening on (http:\/\/\S+)\n/) else {
            throw NotMeasured("the simulator did not start")
        }
        simulatorURL = String(match.1)
        return String(match.1)
    }

    func worker(_ environment: [String: String] = [:]) throws -> Process {
        let standard = [
            "REDIS_URL": "unix://\(socket)", "FLEET_EXCHANGES": "binance", "FLEET_METRICS_PORT": "0",
            "FLEET_LIMITS": "off", "FLEET_CACHE_TTL": "86400", "FLEET_VOLATILE_ORDERS": "yes", "LOG_LEVEL": "error",
            "FLEET_SIMULATOR_URL": simulatorURL ?? "http://127.0.0.1:1",
        ]
        return try Self.start([Self.program("worker")], standard.merging(environment) { $1 })
    }

    /// Starts workers and waits until all of them read.
    func workers(_ count: Int) throws -> [Process] {
        let processes = try (0..<count).map { _ in try worker() }
        try Self.eventually("\(count) workers read") {
            let found = try? redis.call(["XINFO", "CONSUMERS", Self.stream, Keys.group]) { $0.elements }
            return found == count ? () : nil
        }
        return processes
    }

    /// An empty Redis with a ticker of each symbol in the second tier of the cache.
    func clear(symbols: Int = 1) throws {
        try redis.call("FLUSHALL")
        for index in 0..<symbols {
            try redis.call("SET", Self.keys.cache("S\(index)/USDT"), "\(wallClockMs()) \(Self.ticker)")
        }
    }

    /// Prepares jobs that nobody sees before `release`.
    func fill(_ jobs: Int, symbols: Int = 1) throws {
        let script = """
            for i = 1, ARGV[1] do
              redis.call('XADD', KEYS[1], '*', 'symbol', 'S' .. i % ARGV[2] .. '/USDT', 'max_age_ms', '86400000')
            end
            """
        for start in stride(from: 0, to: jobs, by: 10_000) {
            try redis.call("EVAL", script, "1", "bench", "\(min(10_000, jobs - start))", "\(symbols)")
        }
        try redis.call("XGROUP", "CREATE", "bench", Keys.group, "0")
    }

    /// Puts the prepared jobs where workers look.
    func release() throws { try redis.call("RENAME", "bench", Self.stream) }

    /// Waits until no job is left. - Throws: when there are fewer results than jobs.
    func drained(_ jobs: Int, each look: () throws -> Void = {}) throws {
        var (left, at) = (jobs, nowNs())
        while left > 0 {
            usleep(2000)
            try look()
            let now = try redis.call("XLEN", Self.stream)
            if now < left { (left, at) = (now, nowNs()) }
            if nowNs() - at > 20_000_000_000 { throw NotMeasured("\(left) jobs are left and none is done") }
        }
        guard try redis.call("DBSIZE") >= jobs else { throw NotMeasured("there are fewer results than jobs") }
    }

    /// Seconds of processor time Redis has used.
    func redisSeconds() throws -> Double {
        let info = try redis.call(["INFO", "cpu"]) { $0.text }
        return info.matches(of: /used_cpu_(?:sys|user):([0-9.]+)/).reduce(0) { $0 + (Double($1.1) ?? 0) }
    }
}

extension Process {
    /// Seconds of processor time it has used, to a hundredth.
    var seconds: Double {
        let text = (try? String(contentsOfFile: "/proc/\(processIdentifier)/stat", encoding: .utf8)) ?? ""
        let fields = text.drop { $0 != ")" }.split(separator: " ")
        return fields.count > 13 ? ((Double(fields[12]) ?? 0) + (Double(fields[13]) ?? 0)) / 100 : 0
    }

    /// A figure of its memory, e.g. `VmRSS`, in MiB.
    func resident(_ name: String) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(processIdentifier)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
        return (line?.split { !$0.isNumber }.first.flatMap { Double($0) } ?? 0) / 1024
    }
}
