internal import Exchanges
internal import Foundation
internal import Hummingbird
package import Logging
internal import ServiceLifecycle
internal import UnixSignals

/// A worker process: one lane for each exchange, and a small HTTP server for metrics and health.
package enum Worker {
    /// Runs until SIGTERM or SIGINT. - Throws: when the metrics port cannot be had.
    @LaneActor
    package static func run(_ configuration: Configuration, registry: PrometheusRegistry, log: Logger) async throws {
        let (host, process) = (ProcessInfo.processInfo.hostName, ProcessInfo.processInfo.processIdentifier)
        let consumer = "\(host)-\(process)-" + String(format: "%04x", UInt16.random(in: 0 ... .max))
        let clock = FleetClock()
        let http = HTTPClient(now: clock.now)
        defer { http.close() }
        let lanes = configuration.apis.map { api in
            Lane(api: api, consumer: consumer, configuration: configuration, http: http, log: log, clock: clock)
        }
        log.info(
            "worker starts",
            metadata: [
                "consumer": "\(consumer)", "mode": "\(configuration.mode.rawValue)", "redis": "\(configuration.redis)",
                "exchanges": "\(configuration.apis.map(\.exchange.rawValue).joined(separator: ","))",
            ])
        let server = server(lanes, configuration.metricsPort, registry, log)
        // Shut down in reverse order: the lanes first, the metrics last.
        var group = ServiceGroupConfiguration(
            services: [.init(service: server), .init(service: Lanes(lanes: lanes))],
            gracefulShutdownSignals: [.sigterm, .sigint], logger: log)
        group.maximumGracefulShutdownDuration = .seconds(configuration.drainTimeout)
        try await ServiceGroup(configuration: group).run()
        log.info("worker stopped")
    }

    private nonisolated static func server(
        _ lanes: [Lane], _ port: Int, _ registry: PrometheusRegistry, _ log: Logger
    ) -> some Service {
        let router = Router()
        router.get("/metrics") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4"],
                body: .init(byteBuffer: ByteBuffer(string: registry.text())))
        }
        // Alive: every lane's loop turned lately, whatever Redis does. A blocked read takes a second.
        router.get("/healthz") { _, _ in
            await report(lanes) { lane in ContinuousClock.now - lane.turnedAt < .seconds(15) }
        }
        router.get("/readyz") { _, _ in await report(lanes) { $0.isReady } }
        return Application(
            router: router, configuration: .init(address: .hostname("0.0.0.0", port: port)),
            onServerRunning: { channel in
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
