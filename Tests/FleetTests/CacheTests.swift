import Testing

@testable import Fleet

@Suite("Cache")
struct CacheTests {
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
