internal import ArgumentParser

/// Measures a fleet of its own beside the limits of the machine it runs on.
@main
struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the workers, each figure beside its limit, taken in the same run.",
        discussion: """
            Starts a private redis-server, the exchange simulator and workers, and ends them. Only figures of a build
            with -c release mean anything. Exit codes: 0 done, 1 not measured (validate: or too slow), 64 usage.
            """,
        subcommands: [
            Drain.self, Latency.self, HTTP.self, Sharing.self, Caches.self, Calls.self, Memory.self, Validate.self,
        ])
}
