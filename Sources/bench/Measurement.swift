internal import ArgumentParser
internal import Fleet

/// A command that prints what it measures on a rig of its own.
protocol Measurement: AsyncParsableCommand, Sendable {
    var json: Bool { get }
    /// Blocks most of the time, on the lanes' thread, which nothing else needs here.
    @LaneActor func measure(_ rig: Rig) async throws -> Table
}

extension Measurement {
    func run() async throws {
        defer { Rig.end() }
        let table = try await measure(Rig())
        table.show(json: json)
        if !table.passes { throw ExitCode(1) }
    }
}
