internal import Exchanges
internal import Foundation
internal import Hummingbird
package import Logging
internal import ServiceLifecycle
internal import UnixSignals

/// A worker process: one lane for each exchange, and a small HTTP server for metrics and health.
package struct Worker: Sendable {
    private let configuration: Configuration
    private let registry: PrometheusRegistry
    private let log: Logger

    package init(configuration: Configuration, registry: PrometheusRegistry, log: Logger) {
        self.configuration = configuration
        self.registry = registry
        self.log = log
    }

    /// Runs until SIGTERM or SIGINT. - Throws: when the metrics port cannot be had.
    package func run() async throws {
        let host = ProcessInfo.processInfo.hostName
        let suffix = String(UInt16.random(in: .min ... .max), radix: 16)
        let consumer = "\(host)-\(ProcessInfo.processInfo.processIdentifier)-" + String(("000" + suffix).suffix(4))
        let http = HTTPClient(now: wallClockMs)
        defer { http.close() }
        var lanes: [Lane] = []
        for api in configuration.apis {
            lanes.append(
                await Lane(
                    api: api, consumer: consumer, configuration: configuration, http: http, log: log,
                    nowMs: wallClockMs))
        }
        log.info(
            "worker starts",
            metadata: [
                "consumer": "\(consumer)", "mode": "\(configuration.mode.rawValue)", "redis": "\(configuration.redis)",
                "exchanges": "\(configuration.apis.map(\.exchange.rawValue).joined(separator: ","))",
            ])
        // Shut down in reverse order: the lanes first, the metrics last.
        var group = ServiceGroupConfiguration(
            services: [.init(service: server(lanes)), .init(service: Lanes(lanes: lanes))],
            gracefulShutdownSignals: [.sigterm, .sigint], logger: log)
        group.maximumGracefulShutdownDuration = .seconds(configuration.drainTimeout)
        try await ServiceGroup(configuration: group).run()
        log.info("worker stopped")
    }

    private func server(_ lanes: [Lane]) -> some Service {
        let router = Router()
        router.get("/metrics") { [registry] _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4"],
                body: .init(byteBuffer: ByteBuffer(string: registry.text())))
        }
        // Alive: every lane's loop turned lately, whatever Redis does. A blocked read takes a second.
        router.get("/healthz") { _, _ in
            await Self.report(lanes) { lane in ContinuousClock.now - lane.turnedAt < .seconds(15) }
        }
        router.get("/readyz") { _, _ in await Self.report(lanes) { $0.isReady } }
        return Application(
            router: router,
            configuration: .init(address: .hostname("0.0.0.0", port: configuration.metricsPort)),
            onServerRunning: { [log] channel in
                log.info("metrics served", metadata: ["port": "\(channel.localAddress?.port ?? 0)"])
            }, eventLoopGroupProvider: .shared(LaneActor.group),
            logger: Logger(label: "http") { _ in SwiftLogNoOpLogHandler() })
    }

    @LaneActor
    private static func report(_ lanes: [Lane], _ isWell: @LaneActor (Lane) -> Bool) -> Response {
        let lines = lanes.map { "\($0.exchange.rawValue) \(isWell($0) ? "ok" : "not ok")\n" }
        return Response(
            status: lanes.allSatisfy(isWell) ? .ok : .serviceUnavailable, headers: [.contentType: "text/plain"],
            body: .init(byteBuffer: ByteBuffer(string: lines.joined())))
    }
}

/// All lanes as one service, so that they stop side by side.
private struct Lanes: Service {
    let lanes: [Lane]

    func run() async throws {
        await withTaskExecutorPreference(LaneExecutor.shared) {
            await withDiscardingTaskGroup { group in
                for lane in lanes { group.addTask { await lane.run() } }
            }
        }
    }
}

/// Unix milliseconds.
@Sendable package func wallClockMs() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
}
