import Testing

@testable import Fleet

@Suite("Turnstile", .timeLimit(.minutes(1)))
@LaneActor
struct TurnstileTests {
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
