/// Counters of one exchange, by a key that names what is counted and for whom. Times are unix ms.
struct Limits {
    private var windows: [String: (index: Int, count: Int)] = [:]
    private var calls: [String: [Int]] = [:]
    private var levels: [String: (level: Double, at: Int)] = [:]
    /// When the ban of an address ends.
    var bans: [String: Int] = [:]

    /// Adds to a clock-aligned window of `length` ms; the count in it.
    mutating func count(_ key: String, per length: Int, at now: Int, adding: Int = 1) -> Int {
        let before = windows[key].flatMap { $0.index == now / length ? $0.count : nil } ?? 0
        windows[key] = (now / length, before + adding)
        return before + adding
    }

    /// Adds a call to a window of `length` ms that rolls; the calls in it.
    mutating func countRolling(_ key: String, within length: Int, at now: Int) -> Int {
        let recent = calls[key, default: []].filter { $0 > now - length } + [now]
        calls[key] = recent
        return recent.count
    }

    /// Raises a counter that decays by `decay` a second, unless that takes it over `limit`; whether it fitted.
    mutating func charge(_ key: String, _ cost: Double, limit: Double, decay: Double, at now: Int) -> Bool {
        let before = levels[key] ?? (0, now)
        let level = max(0, before.level - decay * Double(now - before.at) / 1000), fits = level + cost <= limit
        levels[key] = (fits ? level + cost : level, now)
        return fits
    }
}
