package import NIOCore
private import NIOPosix
private import NIOSSL

/// One connection: commands go out in the order of the calls, many in flight, and replies come back in that order.
///
/// A call that is not answered within its timeout closes the connection (RESP has no other way to skip a reply), and a
/// connection that breaks fails exactly the commands that were not answered. A caller on the connection's own event
/// loop pays no thread hop.
///
/// Sendable: what can change is touched on the channel's event loop only.
package final class RedisConnection: RedisCalls, ChannelInboundHandler, NIOScheduledCallbackHandler, @unchecked Sendable
{
    package typealias InboundIn = ByteBuffer

    /// Commands sent together, waiting for `count` replies.
    private struct Call {
        let count: Int
        let continuation: CheckedContinuation<[RedisValue], Never>
        let timer: NIOScheduledCallback?
    }

    private let channel: any Channel
    private let reader = ReplyReader()
    private var calls = CircularBuffer<Call>()
    /// Those that have come of the first call. Not in the call: changing an element of the buffer copies it, with all
    /// replies so far, at each reply.
    private var replies: [RedisValue] = []
    private var outgoing: [UInt8] = []
    private var failure: RedisError?

    package var closed: EventLoopFuture<Void> { channel.closeFuture }

    private init(_ channel: any Channel) { self.channel = channel }

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
                    let connection = RedisConnection(channel)
                    if url.usesTLS { try channel.pipeline.syncOperations.addHandler(tlsHandler(url)) }
                    try channel.pipeline.syncOperations.addHandler(connection)
                    return connection
                }
            }
            // Looks names up away from the threads that run tasks, and tries every address.
            connection =
                switch url.address {
                case .tcp(let host, let port):
                    try await bootstrap.connect(host: host, port: port, channelInitializer: setUp)
                case .unix(let path):
                    try await bootstrap.connect(unixDomainSocketPath: path, channelInitializer: setUp)
                }
        } catch {
            throw RedisError(.connectionLost, "no connection to \(url): \(error)")
        }
        var greeting: [RedisCommand] = []
        if let password = url.password { greeting.append(["AUTH"] + [url.user, password].compactMap(\.self)) }
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

    private static func tlsHandler(_ url: RedisURL) throws -> NIOSSLClientHandler {
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let file = url.caFile { configuration.trustRoots = .file(file) }
        guard case .tcp(let host, _) = url.address else { throw RedisError(.invalidURL, "TLS needs a host") }
        // TLS sends no IP address as a server name; the certificate is then checked against the socket's address.
        let isAddress = (try? SocketAddress(ipAddress: host, port: 0)) != nil
        return try NIOSSLClientHandler(
            context: NIOSSLContext(configuration: configuration), serverHostname: isAddress ? nil : host)
    }

    package func close() { channel.close(promise: nil) }

    package nonisolated(nonsending) func pipeline(
        _ commands: [RedisCommand], timeout: Duration
    ) async -> [RedisValue] {
        guard !commands.isEmpty else { return [] }
        let deadline = NIODeadline.now() + TimeAmount(timeout)
        return await withCheckedContinuation { continuation in
            if channel.eventLoop.inEventLoop {
                send(commands, deadline, continuation)
            } else {
                channel.eventLoop.execute { self.send(commands, deadline, continuation) }
            }
        }
    }

    private func send(
        _ commands: [RedisCommand], _ deadline: NIODeadline, _ continuation: CheckedContinuation<[RedisValue], Never>
    ) {
        let timer = try? channel.eventLoop.scheduleCallback(at: deadline, handler: self)
        calls.append(Call(count: commands.count, continuation: continuation, timer: timer))
        if let failure { return fail(failure) }
        let isFirst = outgoing.isEmpty
        for command in commands { outgoing.append(command) }
        // At once when Redis has nothing of ours to do; else one write for all calls of this turn of the loop.
        if calls.count == 1 {
            flush()
        } else if isFirst {
            channel.eventLoop.execute { self.flush() }
        }
    }

    private func flush() {
        channel.writeAndFlush(ByteBuffer(bytes: outgoing), promise: nil)
        outgoing.removeAll(keepingCapacity: true)
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        unwrapInboundIn(data).withUnsafeReadableBytes { reader.feed($0) }
        do throws(RedisError) {
            while let reply = try reader.next() {
                guard !calls.isEmpty else { throw RedisError(.malformedReply, "a reply that nobody asked for") }
                replies.append(reply)
                guard replies.count == calls.first?.count else { continue }
                let call = calls.removeFirst()
                let whole = exchange(&replies, with: [])
                call.timer?.cancel()
                call.continuation.resume(returning: whole)
                // A master that was demoted answers on; the name it was found by may lead to the new one.
                if whole.contains(where: { $0.error?.code == .server("READONLY") }) {
                    throw RedisError(.connectionLost, "Redis is read-only: a replica")
                }
            }
        } catch {
            fail(error)
        }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        fail(RedisError(.connectionLost, "Redis closed the connection"))
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(RedisError(.connectionLost, "the connection to Redis broke: \(error)"))
    }

    package func handleScheduledCallback(eventLoop: some EventLoop) {
        fail(RedisError(.timedOut, "Redis did not answer in time"))
    }

    private func fail(_ error: RedisError) {
        // Closing comes back here as `channelInactive`: the first reason is the one that counts.
        let error = failure ?? error
        failure = error
        channel.close(promise: nil)
        while let call = calls.popFirst() {
            let missing = Array(repeating: RedisValue.error(error), count: call.count - replies.count)
            call.timer?.cancel()
            call.continuation.resume(returning: exchange(&replies, with: []) + missing)
        }
    }
}
