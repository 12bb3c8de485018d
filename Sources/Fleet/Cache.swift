/// A least-recently-used map of at most `capacity` entries, each with an end.
///
/// `get` and `set` of a known key cost a hash look-up; a new key in a full cache looks through all entries for the one
/// that was not used for the longest time, which is little beside the request that brought the value.
package struct Cache<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    private var entries: [Key: (value: Value, expiresMs: Int64, use: UInt64)] = [:]
    private var uses: UInt64 = 0
    private let capacity: Int

    package init(capacity: Int) { self.capacity = max(1, capacity) }

    package var count: Int { entries.count }

    /// The value, unless it is absent or past its end.
    package mutating func get(_ key: Key, at nowMs: Int64) -> Value? {
        guard let index = entries.index(forKey: key), entries.values[index].expiresMs > nowMs else { return nil }
        uses += 1
        entries.values[index].use = uses
        return entries.values[index].value
    }

    package mutating func set(_ key: Key, _ value: Value, expiresMs: Int64) {
        if entries[key] == nil, entries.count >= capacity, let oldest = entries.min(by: { $0.value.use < $1.value.use })
        {
            entries[oldest.key] = nil
        }
        uses += 1
        entries[key] = (value, expiresMs, uses)
    }
}
