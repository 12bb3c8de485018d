internal import NIOCore

/// Pairs replies with calls. Lives on its channel's event loop.
final class PipelineHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    /// Commands sent together, waiting for `count` replies.
    struct Call: Sendable {
        let count: Int
        let deadline: NIODeadline
        let continuation: CheckedContinuation<[RedisValue], Never>

        /// Ends the call after some of its replies.
        func fail(_ error: RedisError, after replies: [RedisValue] = []) {
            let missing = Array(repeating: RedisValue.error(error), count: count - replies.count)
            continuation.resume(returning: replies + missing)
        }
    }

    private let channel: any Channel
    private let reader = ReplyReader()
    private var calls = CircularBuffer<Call>(initialCapacity: 64)
    /// Those that have come of the first call. Not in the call: changing an element of the buffer copies it, with all
    /// replies so far, at each reply.
    private var replies: [RedisValue] = []
    private var outgoing: ByteBuffer
    private var flushIsScheduled = false
    private var nextSweep: NIODeadline = .distantFuture
    private var failure: RedisError?

    init(_ channel: any Channel) {
        self.channel = channel
        outgoing = channel.allocator.buffer(capacity: 4096)
    }

    func send(_ commands: [RedisCommand], _ call: Call) {
        guard channel.isActive, failure == nil else {
            return call.fail(failure ?? RedisError(.connectionLost, "the connection to Redis is closed"))
        }
        for command in commands { command.encode(into: &outgoing) }
        calls.append(call)
        if call.deadline < nextSweep { scheduleSweep(at: call.deadline) }
        // At once when Redis has nothing of ours to do; else one write for all calls of this turn of the loop.
        if calls.count == 1 { return flush() }
        guard !flushIsScheduled else { return }
        flushIsScheduled = true
        let bound = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.eventLoop.execute { bound.value.flush() }
    }

    private func flush() {
        flushIsScheduled = false
        channel.writeAndFlush(outgoing, promise: nil)
        // The same memory again, unless the socket could not take all of it.
        outgoing.clear()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do {
            try unwrapInboundIn(data).withUnsafeReadableBytes { bytes in try reader.feed(bytes) }
            while let reply = try reader.next() {
                guard !calls.isEmpty else { throw RedisError(.malformedReply, "a reply that nobody asked for") }
                replies.append(reply)
                guard replies.count == calls.first?.count else { continue }
                let whole = replies
                replies = []
                calls.removeFirst().continuation.resume(returning: whole)
                // A master that was demoted answers on; the name it was found by may lead to the new one.
                if whole.contains(where: { $0.error?.code == .server("READONLY") }) {
                    fail(RedisError(.connectionLost, "Redis is read-only: a replica"))
                }
            }
        } catch {
            fail(error as? RedisError ?? RedisError(.malformedReply, "\(error)"))
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(RedisError(.connectionLost, "Redis closed the connection"))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(RedisError(.connectionLost, "the connection to Redis broke: \(error)"))
    }

    private func fail(_ error: RedisError) {
        // Closing comes back here as `channelInactive`: the first reason is the one that counts.
        guard failure == nil else { return }
        failure = error
        let unanswered = calls
        calls.removeAll()
        channel.close(promise: nil)
        let partial = replies
        replies = []
        for (index, call) in unanswered.enumerated() { call.fail(error, after: index == 0 ? partial : []) }
    }

    private func scheduleSweep(at deadline: NIODeadline) {
        nextSweep = deadline
        let bound = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.eventLoop.scheduleTask(deadline: deadline) { bound.value.sweep(deadline) }
    }

    /// One timer serves all calls: a timer a call would cost more than the call.
    private func sweep(_ deadline: NIODeadline) {
        guard deadline == nextSweep else { return }
        nextSweep = .distantFuture
        guard let earliest = calls.lazy.map(\.deadline).min() else { return }
        if earliest <= .now() {
            fail(RedisError(.timedOut, "Redis did not answer in time"))
        } else {
            scheduleSweep(at: earliest)
        }
    }
}
