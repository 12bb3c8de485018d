import Testing

@testable import Fleet

@Suite("Turnstile", .timeLimit(.minutes(1)))
@LaneActor
struct TurnstileTests {
    @Test("who is in a hurry comes before those who wait, after those who are")
    func hurry() async {
        let turnstile = Turnstile()
        var order: [Int] = []
        await turnstile.enter()
        await withDiscardingTaskGroup { jobs in
            for number in 0..<6 {
                jobs.addImmediateTask { @LaneActor in
                    await turnstile.enter(first: number % 2 == 1)
                    order.append(number)
                    turnstile.leave()
                }
            }
            while turnstile.waiting < 6 { await Task.yield() }
            turnstile.leave()
        }
        #expect(order == [1, 3, 5, 0, 2, 4])
    }

    @Test("a loading shares its failure, but not that the deadline of whom it was made for has passed")
    func sharedFailure() async {
        struct Failure: Error {}
        for (error, loads) in [(Failure() as any Error, 1), (JobExpired(), 3)] {
            let load = SharedLoad()
            var begun = 0
            await withDiscardingTaskGroup { jobs in
                for _ in 0..<3 {
                    jobs.addImmediateTask { @LaneActor in
                        try? await load.run(unless: { false }) {
                            begun += 1
                            // The others come meanwhile.
                            for _ in 0..<100 { await Task.yield() }
                            throw error
                        }
                    }
                }
            }
            #expect(begun == loads, "\(error)")
        }
    }

    /// They come in the first step of a task that began at once: between its look at the turnstile and its waiting for
    /// it, such a task comes to the actor's thread anew.
    @Test("who comes in the very moment that another leaves gets through")
    func comesAtTheEnd() async {
        await withTaskExecutorPreference(LaneExecutor.shared) { @LaneActor in
            let turnstile = Turnstile()
            var order: [Int] = []
            await withDiscardingTaskGroup { jobs in
                await withCheckedContinuation { begun in
                    jobs.addImmediateTask { @LaneActor in
                        await turnstile.enter()
                        await withCheckedContinuation { (call: CheckedContinuation<Void, Never>) in
                            // It leaves in the turn of the loop that is queued here.
                            begun.resume()
                            call.resume()
                        }
                        order.append(0)
                        turnstile.leave()
                    }
                }
                for number in 1...10 {
                    jobs.addImmediateTask { @LaneActor in
                        await turnstile.enter()
                        order.append(number)
                        turnstile.leave()
                    }
                }
            }
            #expect(order == Array(0...10))
        }
    }
}
