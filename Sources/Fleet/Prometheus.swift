package import CoreMetrics
private import Synchronization

/// A swift-metrics backend that keeps counters, gauges and histograms in memory and writes them in Prometheus' text
/// format 0.0.4. Timers become histograms in seconds; recorders that do not aggregate become gauges.
package final class PrometheusRegistry: MetricsFactory {
    private struct Name: Hashable, Sendable {
        let label: String
        let labels: String
    }

    private let series = Mutex<[Name: Series]>([:])
    private let help: [String: String]

    /// `help` is what the page says of a metric, by its name.
    package init(help: [String: String] = [:]) { self.help = help }

    package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        find(label, dimensions, .counter)
    }

    package func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        find(label, dimensions, aggregate ? .histogram : .gauge)
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        find(label, dimensions, .histogram)
    }

    // What was measured stays on the page, as Prometheus expects of a running process.
    package func destroyCounter(_ handler: any CounterHandler) {}
    package func destroyRecorder(_ handler: any RecorderHandler) {}
    package func destroyTimer(_ handler: any TimerHandler) {}

    /// The page: metrics by name, each with its type.
    package func text() -> String {
        let known = series.withLock { $0 }.sorted { ($0.key.label, $0.key.labels) < ($1.key.label, $1.key.labels) }
        var (text, previous) = ("", "")
        for (name, series) in known {
            if name.label != previous {
                text += help[name.label].map { "# HELP \(name.label) \($0)\n" } ?? ""
                text += "# TYPE \(name.label) \(series.shape.rawValue)\n"
            }
            previous = name.label
            text += series.text(name.label, name.labels)
        }
        return text
    }

    private func find(_ label: String, _ dimensions: [(String, String)], _ shape: Series.Shape) -> Series {
        let escaped = { (value: String) in
            value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
        }
        let name = Name(label: label, labels: dimensions.map { "\($0)=\"\(escaped($1))\"" }.joined(separator: ","))
        return series.withLock { series in
            // One name used for two kinds is a mistake in the program; the second is measured but not shown.
            if let known = series[name] { return known.shape == shape ? known : Series(shape) }
            let new = Series(shape)
            series[name] = new
            return new
        }
    }
}

/// One metric with one set of labels.
private final class Series: CounterHandler, RecorderHandler, TimerHandler {
    enum Shape: String { case counter, gauge, histogram }

    /// Seconds.
    private static let bounds = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
    ]
    let shape: Shape
    /// The total or the level, and of a histogram the observations in each bucket.
    private let state = Mutex((value: 0.0, buckets: Array(repeating: 0, count: bounds.count + 1)))

    init(_ shape: Shape) { self.shape = shape }

    func increment(by amount: Int64) { state.withLock { $0.value += Double(amount) } }
    func reset() { state.withLock { $0.value = 0 } }
    func record(_ value: Int64) { record(Double(value)) }
    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }
    func record(_ value: Double) {
        if shape == .gauge { return state.withLock { $0.value = value } }
        let bucket = Self.bounds.firstIndex { value <= $0 } ?? Self.bounds.count
        state.withLock { state in
            state.value += value
            state.buckets[bucket] += 1
        }
    }

    func text(_ label: String, _ labels: String) -> String {
        let (value, buckets) = state.withLock { $0 }
        let all = labels.isEmpty ? "" : "{\(labels)}"
        guard shape == .histogram else {
            return "\(label)\(all) \(shape == .counter ? "\(Int64(value))" : "\(value)")\n"
        }
        var (total, text) = (0, "")
        for (bound, count) in zip(Self.bounds.map { "\($0)" } + ["+Inf"], buckets) {
            total += count
            text += "\(label)_bucket{\(labels)\(labels.isEmpty ? "" : ",")le=\"\(bound)\"} \(total)\n"
        }
        return text + "\(label)_sum\(all) \(value)\n\(label)_count\(all) \(total)\n"
    }
}
