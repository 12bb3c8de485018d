internal import CHiredis
internal import Exchanges
internal import Fleet
internal import Foundation
private import Synchronization

/// A private Redis without files, and the simulator and workers beside it. All of it ends with this process.
final class Rig {
    static let keys = Keys(.binance)
    static let stream = keys.jobs(.fetchTicker)
    /// Of a job that the cache can answer.
    static let fields = ["symbol", "S0/USDT", "max_age_ms", "86400000"]
    /// A ticker as the contract has it.
    static let ticker =
        #"{"ask":"64005.86000000","base_volume":"10000.00000000","bid":"64002.66000000","change_percent":"1.0142","#
        + #""exchange_ms":1795364926919,"high":"65280.00000000","last":"64002.66000000","low":"62720.00000000","#
        + #""open":"63360.00000000","quote_volume":"640000000.00000000","received_ms":1795364926941,"#
        + #""symbol":"BTC/USDT"}"#

    /// As a worker writes it.
    static func result(of job: Job, _ ticker: String) -> String {
        Outcome.ok(ticker, source: .l1).result(
            of: job, worker: "a-worker-of-8-12345-abcd", startedMs: job.enqueuedMs, finishedMs: wallClockMs())
    }

    private static let directory = NSTemporaryDirectory() + "bench-\(ProcessInfo.processInfo.processIdentifier)"
    private static let children = Mutex<[Process]>([])

    private let signals = [SIGINT, SIGTERM].map { number in
        // A handler, as what is ignored would be ignored by the children too.
        signal(number) { _ in }
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler { end { exit(128 + number) } }
        source.resume()
        return source
    }
    let socket = Rig.directory + "/redis.sock"
    let redis: Wire
    private let redisPid: pid_t
    /// The simulator's address. It has no limits.
    let simulator: String
    private(set) var workers: [Process] = []

    init() throws {
        // Redis may be gone before who still writes to it.
        signal(SIGPIPE) { _ in }
        // A thousand connections, here and in the simulator.
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        try FileManager.default.createDirectory(atPath: Self.directory, withIntermediateDirectories: true)
        let socket = socket
        redisPid = try Self.start([
            "redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir",
            Self.directory,
        ]).processIdentifier
        try Self.eventually("redis-server starts") { (try? Wire(socket)) != nil }
        redis = try Wire(socket)
        let pipe = Pipe()
        let simulator = [Self.program("exchange-simulator"), "--port", "0", "--limits", "off", "--markets", "112"]
        try Self.start(simulator, output: pipe)
        let line = String(decoding: pipe.fileHandleForReading.availableData, as: UTF8.self)
        guard let match = line.firstMatch(of: /listening on (http:\/\/\S+)\n/) else {
            throw NotMeasured("the simulator did not start")
        }
        self.simulator = String(match.1)
    }

    private static func program(_ name: String) -> String {
        (Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent().path ?? ".") + "/" + name
    }

    /// Starts a program, after the variables of its environment if it has any but `PATH`.
    @discardableResult
    static func start(_ command: [String], output: Any = FileHandle.nullDevice) throws -> Process {
        let process = Process()
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["-i", "PATH=\(path)"] + command
        (process.standardInput, process.standardOutput) = (FileHandle.nullDevice, output)
        process.standardError = FileHandle.nullDevice
        // Under the lock: one that is started while the others are ended would outlive them.
        try children.withLock { children in
            try process.run()
            children.append(process)
        }
        return process
    }

    private static func stop(_ processes: [Process]) {
        for process in processes where process.isRunning { kill(process.processIdentifier, SIGKILL) }
        for process in processes { process.waitUntilExit() }
    }

    /// Ends every child and takes the files away. Until `last` returns, nothing is started and nobody else ends it.
    static func end(_ last: () -> Void = {}) {
        children.withLock { children in
            stop(children)
            try? FileManager.default.removeItem(atPath: directory)
            last()
        }
    }

    static func eventually(_ what: String, seconds: Int = 20, _ isSo: () throws -> Bool) throws {
        for _ in 0..<(500 * seconds) {
            if try isSo() { return }
            usleep(2000)
        }
        throw NotMeasured("never happened: \(what)")
    }

    /// Ends the workers, and empties Redis but for a ticker in the second tier of the cache. Then starts others, and
    /// waits until all of them read.
    func begin(workers count: Int, exchanges: String = "binance", concurrency: Int = 256) throws {
        Self.stop(workers)
        workers = []
        try redis.call(["FLUSHALL"])
        try redis.call(["SET", Self.keys.cache("S0/USDT"), "\(wallClockMs()) \(Self.ticker)"])
        for _ in 0..<count { try startWorker(exchanges, concurrency: concurrency) }
        try Self.eventually("\(count) workers read") {
            (try? redis.call(["XINFO", "CONSUMERS", Self.stream, Keys.group], \.elements)) ?? 0 == count
        }
    }

    func startWorker(_ exchanges: String = "binance", concurrency: Int = 256) throws {
        workers.append(
            try Self.start([
                "REDIS_URL=unix://\(socket)", "FLEET_EXCHANGES=\(exchanges)", "FLEET_SIMULATOR_URL=\(simulator)",
                "FLEET_CONCURRENCY=\(concurrency)", "FLEET_LIMITS=off", "FLEET_CACHE_TTL=86400",
                "FLEET_VOLATILE_ORDERS=yes", "FLEET_METRICS_PORT=0",
                "LOG_LEVEL=error", Self.program("worker"),
            ]))
    }

    /// Prepares jobs that nobody sees before `release`.
    func fill(_ jobs: Int) throws {
        let script = "for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2)) end"
        for start in stride(from: 0, to: jobs, by: 10_000) {
            try redis.call(["EVAL", script, "1", "bench", "\(min(10_000, jobs - start))"] + Self.fields)
        }
        try redis.call(["XGROUP", "CREATE", "bench", Keys.group, "0"])
    }

    /// Puts the prepared jobs where workers look.
    func release() throws { try redis.call(["RENAME", "bench", Self.stream]) }

    /// Waits until no job is left. - Throws: when there are fewer results than jobs.
    func drained(_ jobs: Int) throws {
        try Self.eventually("\(jobs) jobs are done", seconds: 20 + jobs / 1000) { try left == 0 }
        if try redis.call(["DBSIZE"], \.integer) < jobs { throw NotMeasured("there are fewer results than jobs") }
    }

    /// How many jobs are not done.
    var left: Int64 { get throws { try redis.call(["XLEN", Self.stream], \.integer) } }

    /// What is spent while the work is done, in seconds: time, and processor time of the workers (without any, of this
    /// process) and of Redis.
    func cost(of work: () throws -> Void) rethrows -> (seconds: Double, clients: Double, redis: Double) {
        let clients = workers.isEmpty ? [getpid()] : workers.map(\.processIdentifier)
        let clocks = { [redisPid] in [Double(nowNs()) / 1e9, processorSeconds(clients), processorSeconds([redisPid])] }
        let before = clocks()
        try work()
        let spent = zip(clocks(), before).map(-)
        return (spent[0], spent[1], spent[2])
    }
}

private func processorSeconds(_ pids: [pid_t]) -> Double {
    pids.reduce(0) { sum, pid in
        var (clock, time) = (clockid_t(), timespec())
        clock_getcpuclockid(pid, &clock)
        clock_gettime(clock, &time)
        return sum + Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
