import Foundation

/// The faults switched on for one exchange, by the names of `POST /control`; the number is the highest value of each.
struct Faults: Sendable {
    private static let most = [
        "latency_ms": 600_000, "error_rate": 1, "rate_limit_rate": 1, "retry_after_s": 259_200, "drop_before_rate": 1,
        "drop_after_rate": 1, "late_accept_rate": 1, "late_accept_ms": 600_000, "query_lag_ms": 600_000,
    ]
    private var values: [String: Double] = [:]
    var random = SplitMix(state: 1)

    /// - Throws: `Answer` with a sentence that names the field, its value and what was expected; nothing is changed then.
    mutating func change(_ wanted: [String: Any]) throws {
        var changed = values
        for (name, value) in wanted where name != "exchange" {
            guard let most = Faults.most[name] else {
                throw Faults.refusal(
                    "unknown field \(name) = \(value): expected \(Faults.most.keys.sorted().joined(separator: ", "))")
            }
            // Foundation takes a truth value for a number, of type "c".
            let isTruth = (value as? NSNumber).map { String(cString: $0.objCType) == "c" } ?? true
            let number = value is String || isTruth ? nil : Double("\(value)")
            guard let number, 0...Double(most) ~= number, most == 1 || number == number.rounded() else {
                let kind = most == 1 ? "number" : "whole number"
                throw Faults.refusal("\(name) = \(value): expected a \(kind) from 0 to \(most)")
            }
            changed[name] = number
        }
        values = changed
    }
    static func refusal(_ sentence: String) -> Answer { Answer(status: 400, body: json(["error": sentence])) }

    mutating func clear() { values = [:] }
    /// Milliseconds or seconds; 0 when off.
    func whole(_ name: String) -> Int { Int(values[name] ?? 0) }
    mutating func draw(_ name: String) -> Bool { values[name].map { chance($0) } ?? false }
    mutating func chance(_ rate: Double) -> Bool { Double(random.next() >> 11) / 9_007_199_254_740_992 < rate }
    var text: String { json(Faults.most.mapValues { _ in 0.0 }.merging(values) { $1 }) }
}
