import Exchanges
import Foundation

/// The faults switched on for one exchange, by the names of `POST /control`.
struct Faults {
    /// The highest value of each.
    private static let most: [String: Double] = [
        "latency_ms": 600_000, "error_rate": 1, "rate_limit_rate": 1, "retry_after_s": 259_200, "drop_before_rate": 1,
        "drop_after_rate": 1, "late_accept_rate": 1, "late_accept_ms": 600_000, "query_lag_ms": 600_000,
    ]
    private(set) var values = most.mapValues { _ in 0.0 }
    private(set) var random: Seeded

    /// Nil, or why nothing was changed: the field, its value and what was expected.
    mutating func change(_ wanted: [String: Any]) -> String? {
        var changed = values
        for (name, value) in wanted where name != "exchange" {
            // By its JSON, as a truth value would be a number too.
            guard let most = Faults.most[name], let number = Double(jsonText(value)), 0...most ~= number else {
                return "\(name) = \(value): expected a number from 0 to that of \(jsonText(Faults.most))"
            }
            changed[name] = number
        }
        values = changed
        return nil
    }
    /// Milliseconds or seconds; 0 when off.
    func whole(_ name: String) -> Int { Int(values[name] ?? 0) }
    mutating func draw(_ rate: String) -> Bool { Double.random(in: 0..<1, using: &random) < values[rate] ?? 0 }
    /// One of the choices, all equally likely; there must be one.
    mutating func pick<T>(_ choices: [T]) -> T { choices[Int.random(in: choices.indices, using: &random)] }
}
