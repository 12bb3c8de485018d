package import NIOCore
private import NIOPosix
private import NIOSSL

/// One connection: commands go out in the order of the calls, many in flight, and replies come back in that order.
///
/// A call that is not answered within its timeout closes the connection (RESP has no other way to skip a reply), and a
/// connection that breaks fails exactly the commands that were not answered. A caller on the connection's own event
/// loop pays no thread hop.
package final class RedisConnection: RedisCalls {
    package let closed: EventLoopFuture<Void>
    private let channel: any Channel
    private let pipeline: NIOLoopBound<PipelineHandler>

    private init(_ channel: any Channel, _ pipeline: NIOLoopBound<PipelineHandler>) {
        (self.channel, self.pipeline, closed) = (channel, pipeline, channel.closeFuture)
    }

    /// Connects, logs in, selects the database and names the connection.
    /// - Throws: `connectionLost` when the server cannot be reached or TLS fails; `server` when it refuses the login.
    package static func connect(
        to url: RedisURL, on loop: any EventLoop, name: String, timeout: Duration = .seconds(5)
    ) async throws(RedisError) -> RedisConnection {
        let connection: RedisConnection
        do {
            let bootstrap = ClientBootstrap(group: loop).connectTimeout(TimeAmount(timeout))
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            let setUp = { @Sendable (channel: any Channel) in
                channel.eventLoop.makeCompletedFuture {
                    if url.usesTLS { try channel.pipeline.syncOperations.addHandler(tlsHandler(url)) }
                    let handler = PipelineHandler(channel)
                    try channel.pipeline.syncOperations.addHandler(handler)
                    return (channel, NIOLoopBound(handler, eventLoop: channel.eventLoop))
                }
            }
            // Looks names up away from the threads that run tasks, and tries every address.
            let (channel, handler) =
                switch url.address {
                case .tcp(let host, let port):
                    try await bootstrap.connect(host: host, port: port, channelInitializer: setUp)
                case .unix(let path):
                    try await bootstrap.connect(unixDomainSocketPath: path, channelInitializer: setUp)
                }
            connection = RedisConnection(channel, handler)
        } catch {
            throw RedisError(.connectionLost, "no connection to \(url): \(error)")
        }
        var greeting: [RedisCommand] = []
        if let password = url.password {
            greeting.append(RedisCommand(["AUTH"] + [url.user, password].compactMap { $0.map(RedisArgument.text) }))
        }
        if url.database != 0 { greeting.append(["SELECT", .int(url.database)]) }
        greeting.append(["CLIENT", "SETNAME", .text(name)])
        for error in await connection.pipeline(greeting, timeout: timeout).compactMap(\.error) {
            // A user who may not name connections can still work.
            if case .server("NOPERM") = error.code { continue }
            connection.close()
            throw error
        }
        return connection
    }

    package nonisolated(nonsending) func pipeline(
        _ commands: [RedisCommand], timeout: Duration
    ) async -> [RedisValue] {
        guard !commands.isEmpty else { return [] }
        return await withCheckedContinuation { continuation in
            let call = PipelineHandler.Call(
                count: commands.count, deadline: .now() + TimeAmount(timeout), continuation: continuation)
            if channel.eventLoop.inEventLoop {
                pipeline.value.send(commands, call)
            } else {
                channel.eventLoop.execute { [pipeline] in pipeline.value.send(commands, call) }
            }
        }
    }

    package func close() { channel.close(promise: nil) }

    private static func tlsHandler(_ url: RedisURL) throws -> NIOSSLClientHandler {
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let file = url.caFile { configuration.trustRoots = .file(file) }
        guard case .tcp(let host, _) = url.address else { throw RedisError(.invalidURL, "TLS needs a host") }
        // TLS sends no IP address as a server name; the certificate is then checked against the socket's address.
        let isAddress = (try? SocketAddress(ipAddress: host, port: 0)) != nil
        return try NIOSSLClientHandler(
            context: NIOSSLContext(configuration: configuration), serverHostname: isAddress ? nil : host)
    }
}
