/// Counters of one exchange, by a key that names what is counted and for whom. Times are unix ms.
struct Limits: Sendable {
    private var windows: [String: (index: Int, count: Int)] = [:]
    private var marks: [String: [Int]] = [:]
    private var levels: [String: (level: Double, at: Int)] = [:]
    private var bans: [String: (until: Int, count: Int, warned: Int)] = [:]

    /// Adds to a clock-aligned window of `length` ms; the count in it, never below 0.
    @discardableResult mutating func count(_ key: String, per length: Int, at now: Int, adding: Int = 0) -> Int {
        let before = windows[key].flatMap { $0.index == now / length ? $0.count : nil } ?? 0
        windows[key] = (now / length, max(0, before + adding))
        return max(0, before + adding)
    }

    /// Takes a place in a rolling window of `length` ms unless `limit` are taken; `adding` false only looks.
    /// - Returns: whether there was one, the places left, and when (unix ms) the oldest comes free.
    mutating func roll(
        _ key: String, limit: Int, per length: Int, at now: Int, adding: Bool = true
    ) -> (fits: Bool, left: Int, reset: Int) {
        var taken = (marks[key] ?? []).drop { $0 <= now - length }
        let fits = taken.count < limit
        if fits, adding { taken.append(now) }
        marks[key] = Array(taken)
        return (fits, limit - taken.count, fits ? now : (taken.first ?? now) + length)
    }

    /// Raises a counter that decays by `decay` a second, unless that takes it over `limit`; whether it fitted.
    mutating func charge(_ key: String, _ cost: Double, limit: Double, decay: Double, at now: Int) -> Bool {
        let before = levels[key] ?? (0, now)
        let level = max(0, before.level - decay * Double(now - before.at) / 1000)
        levels[key] = (level + cost <= limit ? level + cost : level, now)
        return level + cost <= limit
    }

    /// The end of a running ban.
    func ban(_ key: String, at now: Int) -> Int? { bans[key].flatMap { $0.until > now ? $0.until : nil } }

    /// Bans for `first` ms, doubled each time, at most three days; in a window of `length` ms the first breach only warns, and
    /// so do those within 100 ms of it, which were on their way before the warning could arrive.
    /// - Returns: the end of the new ban, or nil for a warning.
    mutating func breach(_ key: String, per length: Int?, first: Int, at now: Int) -> Int? {
        var ban = bans[key] ?? (0, 0, 0)
        defer { bans[key] = ban }
        if let length, ban.warned / length != now / length { ban.warned = now }
        if length != nil, now - ban.warned <= 100 { return nil }
        (ban.until, ban.count) = (now + min(first << min(ban.count, 16), 259_200_000), ban.count + 1)
        return ban.until
    }
}
