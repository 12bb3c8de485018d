package import NIOCore
package import NIOPosix

/// The one thread of a worker's state: lanes, caches, breakers and limiters live on one event loop and need no locks.
@globalActor
package actor LaneActor {
    package static let shared = LaneActor()
    package static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    package static let loop: any EventLoop = group.next()

    /// Sleeps on the loop's own clock: `Task.sleep` wakes three other threads to wake this one, which is what an idle
    /// worker would mostly do. - Throws: `CancellationError`.
    static func sleep(for duration: Duration) async throws {
        let timer = loop.scheduleTask(in: TimeAmount(duration)) {}
        try await withTaskCancellationHandler {
            do { try await timer.futureResult.get() } catch { throw CancellationError() }
        } onCancel: {
            timer.cancel()
        }
    }

    /// Does what takes the processor for long on another thread, so that nothing here waits for it.
    nonisolated static func apart<Value: Sendable>(_ work: @Sendable () throws -> Value) async throws -> Value {
        try await withTaskExecutorPreference(globalConcurrentExecutor) { try work() }
    }

    package nonisolated var unownedExecutor: UnownedSerialExecutor { Self.loop.executor.asUnownedSerialExecutor() }
}

/// Runs on the actor's thread what a task would do on the global pool. A continuation resumes there first, whatever actor
/// waits for it, which is two thread switches for each reply of Redis.
final class LaneExecutor: TaskExecutor {
    static let shared = LaneExecutor()

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        LaneActor.loop.execute {
            job.runSynchronously(
                isolatedTo: LaneActor.sharedUnownedExecutor, taskExecutor: self.asUnownedTaskExecutor())
        }
    }
}
