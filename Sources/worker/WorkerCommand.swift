internal import CoreMetrics
internal import Fleet
internal import Foundation
internal import Logging
internal import NIOCore

/// Reads the settings, all their faults in one message, and runs a worker until SIGTERM.
@main
struct WorkerCommand {
    static func main() async {
        guard CommandLine.arguments.count == 1 else {
            fail("worker takes no arguments; its settings are environment variables, listed in the README", status: 64)
        }
        let configuration: Configuration
        do throws(Configuration.Invalid) {
            configuration = try Configuration(ProcessInfo.processInfo.environment)
        } catch {
            fail("the settings are not usable\n\(error)", status: 64)
        }
        LoggingSystem.bootstrap { label -> any LogHandler in
            configuration.logFormat == .json ? JSONLogHandler() : StreamLogHandler.standardError(label: label)
        }
        // The usual soft limit, 1024 open files, is fewer than the connections of a high FLEET_CONCURRENCY, and one that
        // cannot be opened looks like a fault of the exchange.
        var files = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
        files.rlim_cur = files.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
        let registry = PrometheusRegistry(help: LaneMetrics.help)
        MetricsSystem.bootstrap(registry)
        var log = Logger(label: "worker")
        log.logLevel = configuration.logLevel
        do {
            try await Worker.run(configuration, registry: registry, log: log)
        } catch let error as IOError {
            // Everything else that is opened is tried again.
            let reason = String(cString: strerror(error.errnoCode))
            fail("FLEET_METRICS_PORT: '\(configuration.metricsPort)' (\(reason)); expected a free port", status: 1)
        } catch {
            fail("\(error)", status: 1)
        }
    }

    private static func fail(_ text: String, status: Int32) -> Never {
        // Where nobody reads it any more, or it cannot be written, the status still says it.
        signal(SIGPIPE, SIG_IGN)
        try? FileHandle.standardError.write(contentsOf: Data("worker: \(text)\n".utf8))
        exit(status)
    }
}
