internal import CoreMetrics
internal import Fleet
internal import Foundation
internal import Logging

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
        let registry = PrometheusRegistry(help: LaneMetrics.help)
        MetricsSystem.bootstrap(registry)
        var log = Logger(label: "worker")
        log.logLevel = configuration.logLevel
        do {
            try await Worker(configuration: configuration, registry: registry, log: log).run()
        } catch {
            fail("\(error)", status: 1)
        }
    }

    private static func fail(_ text: String, status: Int32) -> Never {
        FileHandle.standardError.write(Data("worker: \(text)\n".utf8))
        exit(status)
    }
}
