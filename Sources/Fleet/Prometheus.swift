package import CoreMetrics
private import Synchronization

/// A swift-metrics backend that keeps counters, gauges and histograms in memory and writes them in Prometheus' text
/// format 0.0.4. Timers become histograms in seconds; recorders that do not aggregate become gauges.
package final class PrometheusRegistry: MetricsFactory {
    private struct Name: Hashable, Sendable {
        let label: String
        let labels: String
    }

    private let values = Mutex<[Name: any Exposed]>([:])

    package init() {}

    package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        find(label, dimensions) { Count() }
    }

    package func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler {
        if aggregate { find(label, dimensions) { Histogram() } } else { find(label, dimensions) { Level() } }
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        find(label, dimensions) { Histogram() }
    }

    // What was measured stays on the page, as Prometheus expects of a running process.
    package func destroyCounter(_ handler: any CounterHandler) {}
    package func destroyRecorder(_ handler: any RecorderHandler) {}
    package func destroyTimer(_ handler: any TimerHandler) {}

    /// The page: metrics by name, each with its type.
    package func text() -> String {
        let known = values.withLock { $0 }.sorted { ($0.key.label, $0.key.labels) < ($1.key.label, $1.key.labels) }
        var text = ""
        var previous = ""
        for (name, value) in known {
            if name.label != previous { text += "# TYPE \(name.label) \(value.type)\n" }
            previous = name.label
            for line in value.lines {
                let labels = [name.labels, line.label].filter { !$0.isEmpty }.joined(separator: ",")
                text += name.label + line.suffix + (labels.isEmpty ? "" : "{\(labels)}") + " \(line.value)\n"
            }
        }
        return text
    }

    private func find<Handler: Exposed>(
        _ label: String, _ dimensions: [(String, String)], _ make: () -> Handler
    ) -> Handler {
        let labels = dimensions.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",")
        return values.withLock { values in
            let name = Name(label: label, labels: labels)
            // One name used for two types is a mistake in the program; the second is measured but not shown.
            if let known = values[name] { return known as? Handler ?? make() }
            let handler = make()
            values[name] = handler
            return handler
        }
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}

private struct Line {
    var suffix = ""
    var label = ""
    let value: String
}

private protocol Exposed: AnyObject, Sendable {
    var type: String { get }
    var lines: [Line] { get }
}

private final class Count: CounterHandler, Exposed {
    private let value = Atomic<Int64>(0)
    let type = "counter"
    var lines: [Line] { [Line(value: "\(value.load(ordering: .relaxed))")] }

    func increment(by amount: Int64) { value.wrappingAdd(amount, ordering: .relaxed) }
    func reset() { value.store(0, ordering: .relaxed) }
}

private final class Level: RecorderHandler, Exposed {
    private let value = Mutex(0.0)
    let type = "gauge"
    var lines: [Line] { [Line(value: "\(value.withLock { $0 })")] }

    func record(_ value: Int64) { record(Double(value)) }
    func record(_ value: Double) { self.value.withLock { $0 = value } }
}

private final class Histogram: RecorderHandler, TimerHandler, Exposed {
    /// Seconds.
    private static let bounds = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
    ]
    private let state = Mutex((counts: Array(repeating: 0, count: bounds.count + 1), sum: 0.0))
    let type = "histogram"

    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }
    func record(_ value: Int64) { record(Double(value)) }
    func record(_ value: Double) {
        let bucket = Self.bounds.firstIndex { value <= $0 } ?? Self.bounds.count
        state.withLock { state in
            state.counts[bucket] += 1
            state.sum += value
        }
    }

    var lines: [Line] {
        let (counts, sum) = state.withLock { $0 }
        var total = 0
        var lines: [Line] = []
        for (bound, count) in zip(Self.bounds.map { "\($0)" } + ["+Inf"], counts) {
            total += count
            lines.append(Line(suffix: "_bucket", label: "le=\"\(bound)\"", value: "\(total)"))
        }
        return lines + [Line(suffix: "_sum", value: "\(sum)"), Line(suffix: "_count", value: "\(total)")]
    }
}
