package import NIOCore
package import NIOPosix

/// The one thread of a worker's state: lanes, caches, breakers and limiters live on one event loop and need no locks.
@globalActor
package actor LaneActor {
    package static let shared = LaneActor()
    package static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    package static let loop: any EventLoop = group.next()

    package nonisolated var unownedExecutor: UnownedSerialExecutor { Self.loop.executor.asUnownedSerialExecutor() }
}
