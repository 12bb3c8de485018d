/// A least-recently-used map of at most `capacity` entries, each with an end. Get and set cost a hash look-up and
/// four array writes: the order of use is a doubly linked list through `nodes`.
package struct Cache<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    private struct Node: Sendable {
        var key: Key
        var value: Value
        var expiresMs: Int64
        var newer, older: Int
    }

    private var nodes: [Node] = []
    private var index: [Key: Int] = [:]
    private var newest = -1
    private var oldest = -1
    private let capacity: Int

    package init(capacity: Int) { self.capacity = max(1, capacity) }

    package var count: Int { index.count }

    /// The value, unless it is absent or past its end.
    package mutating func get(_ key: Key, at nowMs: Int64) -> Value? {
        guard let at = index[key], nodes[at].expiresMs > nowMs else { return nil }
        if at != newest {
            unlink(at)
            link(at)
        }
        return nodes[at].value
    }

    /// Stores the value until `expiresMs`; a full cache drops the entry that was not used for the longest time.
    package mutating func set(_ key: Key, _ value: Value, expiresMs: Int64) {
        let at: Int
        if let known = index[key] {
            at = known
            unlink(at)
        } else if nodes.count < capacity {
            at = nodes.count
            nodes.append(Node(key: key, value: value, expiresMs: expiresMs, newer: -1, older: -1))
        } else {
            at = oldest
            unlink(at)
            index[nodes[at].key] = nil
        }
        nodes[at] = Node(key: key, value: value, expiresMs: expiresMs, newer: -1, older: -1)
        index[key] = at
        link(at)
    }

    private mutating func unlink(_ at: Int) {
        let (newer, older) = (nodes[at].newer, nodes[at].older)
        if newer >= 0 { nodes[newer].older = older } else { newest = older }
        if older >= 0 { nodes[older].newer = newer } else { oldest = newer }
    }

    private mutating func link(_ at: Int) {
        (nodes[at].newer, nodes[at].older) = (-1, newest)
        if newest >= 0 { nodes[newest].newer = at } else { oldest = at }
        newest = at
    }
}
