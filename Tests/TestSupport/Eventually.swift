/// What was waited for did not come within its time.
package struct NeverHappened: Error, CustomStringConvertible {
    package let description: String

    package init(_ what: String) { description = "never happened: \(what)" }
}

/// Asks every 10 ms until there is a value, and returns it. The one way tests wait for something.
/// - Throws: `NeverHappened` after `limit`, naming what was waited for.
@discardableResult
package func eventually<Value: Sendable>(
    _ what: String, within limit: Duration = .seconds(40), isolation: isolated (any Actor)? = #isolation,
    _ look: () async throws -> Value?
) async throws -> Value {
    let end = ContinuousClock.now + limit
    while true {
        if let value = try await look() { return value }
        guard ContinuousClock.now < end else { throw NeverHappened(what) }
        try await Task.sleep(for: .milliseconds(10))
    }
}

/// Waits until the condition holds.
package func eventually(
    _ what: String, within limit: Duration = .seconds(40), isolation: isolated (any Actor)? = #isolation,
    holds condition: () async throws -> Bool
) async throws {
    try await eventually(what, within: limit) { try await condition() ? true : nil }
}
