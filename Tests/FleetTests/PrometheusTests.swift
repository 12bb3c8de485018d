import CoreMetrics
import Foundation
import TestSupport
import Testing

@testable import Fleet

@Suite("Prometheus page", .timeLimit(.minutes(1)))
struct PrometheusTests {
    /// The lines of a page, numbers without a fraction of nothing.
    private func lines(_ registry: PrometheusRegistry) -> [String] {
        registry.text().split(separator: "\n").map { $0.hasSuffix(".0") ? String($0.dropLast(2)) : String($0) }
    }

    private func filled() -> PrometheusRegistry {
        let registry = PrometheusRegistry()
        registry.makeCounter(label: "fleet_a_total", dimensions: [("exchange", "binance")]).increment(by: 3)
        registry.makeCounter(label: "fleet_a_total", dimensions: [("exchange", "kraken")]).increment(by: 2)
        registry.makeCounter(label: "fleet_a_total", dimensions: [("exchange", "kraken")]).increment(by: 2)
        registry.makeRecorder(label: "fleet_open", dimensions: [], aggregate: false).record(Int64(1))
        let timer = registry.makeTimer(label: "fleet_wait_seconds", dimensions: [("kind", "a")])
        for milliseconds in [1, 20, 20, 3000, 100_000] { timer.recordNanoseconds(Int64(milliseconds) * 1_000_000) }
        return registry
    }

    @Test("counters, gauges and histograms are written in the text format")
    func text() {
        let lines = lines(filled())
        for expected in [
            "# TYPE fleet_a_total counter", "fleet_a_total{exchange=\"binance\"} 3",
            "fleet_a_total{exchange=\"kraken\"} 4",
            "# TYPE fleet_open gauge", "fleet_open 1", "# TYPE fleet_wait_seconds histogram",
            "fleet_wait_seconds_bucket{kind=\"a\",le=\"0.001\"} 1",
            "fleet_wait_seconds_bucket{kind=\"a\",le=\"0.025\"} 3",
            "fleet_wait_seconds_bucket{kind=\"a\",le=\"60.0\"} 4",
            "fleet_wait_seconds_bucket{kind=\"a\",le=\"+Inf\"} 5",
            "fleet_wait_seconds_count{kind=\"a\"} 5",
        ] { #expect(lines.contains(expected), "\(expected)") }
        #expect(lines.filter { $0.hasPrefix("# TYPE fleet_a_total") }.count == 1)
    }

    @Test("label values are escaped")
    func escaped() {
        let registry = PrometheusRegistry()
        registry.makeCounter(label: "x_total", dimensions: [("a", "q\"b\\n\nend")]).increment(by: 1)
        #expect(lines(registry).contains("x_total{a=\"q\\\"b\\\\n\\nend\"} 1"))
    }

    @Test("a name used for two types is measured and does not break the page")
    func twoTypes() {
        let registry = filled()
        registry.makeRecorder(label: "fleet_a_total", dimensions: [("exchange", "binance")], aggregate: false).record(
            9.0)
        #expect(lines(registry).contains("fleet_a_total{exchange=\"binance\"} 3"))
    }

    private static let hasPromtool = ["/usr/bin/promtool", "/usr/local/bin/promtool"].contains {
        FileManager.default.isExecutableFile(atPath: $0)
    }

    @Test("promtool accepts the page", .enabled(if: hasPromtool, "promtool is not installed"))
    func promtool() async throws {
        let directory = try TemporaryDirectory()
        let registry = filled()
        registry.makeCounter(label: "x_total", dimensions: [("a", "q\"b\\n\nend é")]).increment(by: 1)
        let page = try directory.write(registry.text(), to: "metrics")
        let program = try Program(["promtool", "check", "metrics"], input: page, in: directory)
        let status = try await program.exited()
        let complaints = (program.errors + program.output).split(separator: "\n")
        // The names say what they count; help texts are the one thing left out.
        #expect(complaints.allSatisfy { $0.hasSuffix("no help text") }, "\(complaints)")
        #expect(status == 0 || !complaints.isEmpty)
    }
}
