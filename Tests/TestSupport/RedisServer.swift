/// A redis-server of its own on a Unix socket, in a directory of its own.
package final class RedisServer: Sendable {
    package let directory: TemporaryDirectory
    package let socket: String
    private let options: [String]
    private let program: Program

    /// `unix://` and the socket.
    package var url: String { "unix://\(socket)" }

    /// Starts a server with nothing on disk and waits until it accepts connections.
    /// - Parameters:
    ///   - options: more of the command line, e.g. `["--requirepass", "x"]`.
    ///   - directory: where an earlier server's socket was, to take its place.
    /// - Throws: `NeverHappened` when it does not start.
    package init(_ options: [String] = [], in directory: TemporaryDirectory? = nil) async throws {
        let directory = try directory ?? TemporaryDirectory()
        self.directory = directory
        self.options = options
        socket = directory.file("redis.sock")
        let program = try Program(
            [
                "redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir",
                directory.path,
            ] + options, in: directory)
        self.program = program
        try await eventually("redis-server accepts connections") {
            program.output.contains("eady to accept connections") && !isRefused(socket)
        }
    }

    /// Ends the server at once, as a crash would.
    package func kill() { program.stop() }

    /// Stops or continues it, or what else a signal does.
    package func signal(_ number: Int32) { program.signal(number) }

    /// A new, empty server in the place of a killed one.
    package func restarted() async throws -> RedisServer { try await RedisServer(options, in: directory) }
}
