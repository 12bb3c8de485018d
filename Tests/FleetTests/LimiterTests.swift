import Testing

@testable import Fleet

@Suite("Limiter and cache")
struct LimiterTests {
    @Test("a full bucket gives what it holds, then says how long until the next")
    func capacityAndWait() {
        var limiter = limiter([(5, 2)])
        for _ in 0..<5 { #expect(limiter.take([1], at: at(0)) == nil) }
        #expect(limiter.take([1], at: at(0)) == .seconds(0.5))
        #expect(limiter.take([3], at: at(0)) == .seconds(1.5))
    }

    @Test("it refills with time, never beyond what it holds")
    func refill() {
        var limiter = limiter([(4, 2)])
        #expect(limiter.take([4], at: at(0)) == nil)
        #expect(limiter.take([2], at: at(1)) == nil)
        #expect(limiter.take([1], at: at(1)) != nil)
        #expect(limiter.take([4], at: at(1000)) == nil)
        #expect(limiter.take([0.5], at: at(1000)) != nil)
    }

    @Test("limits are taken all together or not at all")
    func allOrNothing() {
        var limiter = limiter([(10, 1), (1, 0.1)])
        #expect(limiter.take([1, 1], at: at(0)) == nil)
        #expect(limiter.take([1, 1], at: at(0)) == .seconds(10), "the second limit is spent")
        #expect(limiter.take([9, 0], at: at(0)) == nil, "what was refused took nothing from the first")
        #expect(limiter.take([1, 0], at: at(0)) == .seconds(1))
    }

    @Test("a cost of nothing passes a spent limit of others")
    func freeCost() {
        var limiter = limiter([(2, 1), (1, 0.001)])
        #expect(limiter.take([0, 1], at: at(0)) == nil)
        #expect(limiter.take([1, 0], at: at(0)) == nil)
    }

    @Test("a call dearer than the bucket goes when it is full and leaves a debt")
    func debt() {
        var limiter = limiter([(5, 1)])
        #expect(limiter.take([8], at: at(0)) == nil)
        #expect(limiter.take([1], at: at(0)) == .seconds(4))
        #expect(limiter.take([1], at: at(3.5)) != nil)
        #expect(limiter.take([1], at: at(4)) == nil)
    }

    @Test("a closed gate lets nothing through until its end, and the longest closing counts")
    func closeGate() {
        var limiter = limiter([(5, 1)])
        limiter.close(for: .seconds(30), at: at(0))
        limiter.close(for: .seconds(10), at: at(5))
        #expect(limiter.take([0], at: at(5)) == .seconds(25))
        #expect(limiter.take([1], at: at(29)) == .seconds(1))
        #expect(limiter.take([5], at: at(30)) == nil)
    }

    @Test("time that goes back gives nothing")
    func timeBackwards() {
        var limiter = limiter([(5, 1)])
        #expect(limiter.take([5], at: at(10)) == nil)
        #expect(limiter.take([1], at: at(5)) == .seconds(1))
        #expect(limiter.take([1], at: at(11)) == nil)
    }

    @Test("a full cache drops what was not used for the longest time")
    func leastRecentlyUsed() {
        var cache = cache(capacity: 3)
        for (index, key) in ["a", "b", "c"].enumerated() { cache.set(key, index, expiresMs: 100) }
        #expect(cache.get("a", at: 0) == 0)
        cache.set("d", 3, expiresMs: 100)
        #expect(cache.get("b", at: 0) == nil)
        cache.set("c", 22, expiresMs: 100)
        cache.set("e", 4, expiresMs: 100)
        #expect(["a", "c", "d", "e"].map { cache.get($0, at: 0) } == [nil, 22, 3, 4])
        #expect(cache.count == 3)
    }

    @Test("an entry ends at its time, and a new value gives it a new one")
    func timeToLive() {
        var cache = cache(capacity: 2)
        cache.set("a", 1, expiresMs: 10)
        #expect(cache.get("a", at: 9) == 1)
        #expect(cache.get("a", at: 10) == nil)
        cache.set("a", 2, expiresMs: 20)
        #expect(cache.get("a", at: 19) == 2)
        #expect(cache.count == 1)
    }

    @Test("it never holds more than its capacity, whatever is asked of it", arguments: [1, 2, 7, 1000])
    func bounded(_ capacity: Int) {
        var cache = cache(capacity: capacity)
        var order: [String] = []
        var random = SystemRandomNumberGenerator()
        for step in 0..<5000 {
            let key = "\(Int.random(in: 0..<capacity * 2, using: &random))"
            if Bool.random(using: &random) {
                cache.set(key, step, expiresMs: 10)
                order.removeAll { $0 == key }
                order.append(key)
                if order.count > capacity { order.removeFirst() }
            } else {
                let isThere = order.contains(key)
                #expect((cache.get(key, at: 0) != nil) == isThere)
                if isThere {
                    order.removeAll { $0 == key }
                    order.append(key)
                }
            }
        }
        #expect(cache.count == order.count)
    }
}
