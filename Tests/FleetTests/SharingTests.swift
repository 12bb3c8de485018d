import Testing

@testable import Fleet

@Suite("Sharing", .timeLimit(.minutes(1)))
@LaneActor
struct SharingTests {
    /// They join in the first step of a task that began at once: between its look at the call and its waiting for it, such
    /// a task comes to the actor's thread anew.
    @Test("who joins a call in the very moment of its end gets an answer")
    func joinsAtTheEnd() async {
        await withTaskExecutorPreference(LaneExecutor.shared) { @LaneActor in
            let flights = SingleFlight<Int, String>()
            var answers: [String] = []
            await withDiscardingTaskGroup { jobs in
                await withCheckedContinuation { begun in
                    jobs.addImmediateTask { @LaneActor in
                        let answer = try? await flights.join(0) {
                            await withCheckedContinuation { (call: CheckedContinuation<Void, Never>) in
                                // It ends with the turn of the loop that is queued here.
                                begun.resume()
                                call.resume()
                            }
                            return "first"
                        }
                        answers.append(answer ?? "none")
                    }
                }
                for _ in 0..<10 {
                    jobs.addImmediateTask { @LaneActor in
                        answers.append((try? await flights.join(0) { "another" }) ?? "none")
                    }
                }
            }
            #expect(answers.count == 11 && !answers.contains("none"), "\(answers)")
        }
    }
}
