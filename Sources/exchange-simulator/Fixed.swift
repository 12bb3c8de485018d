/// An exact decimal: a count of 1e-10, enough for every price, amount and cost the three exchanges quote. Never binary.
struct Fixed: Comparable, Sendable {
    static let zero = Fixed(units: 0)
    private static let one: Int128 = 10_000_000_000
    let units: Int128

    init(units: Int128) { self.units = units }

    /// Plain digits with at most one point; nil for a sign, an exponent or more than 20 digits on one side. What does not
    /// fit the tenth place leaves a last digit of 1, which no exchange's step divides: such a number is always refused.
    init?(_ text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        let (whole, part) = (Array(parts[0]), parts.count > 1 ? Array(parts[1]) : [])
        let digits = whole + (part + [UInt8](repeating: 48, count: 10)).prefix(10)
        guard whole.count + part.count > 0, max(whole.count, part.count) <= 20 else { return nil }
        guard (whole + part).allSatisfy({ 48...57 ~= $0 }) else { return nil }
        let units = digits.reduce(Int128(0)) { $0 * 10 + Int128($1 - 48) }
        self.units = part.dropFirst(10).allSatisfy { $0 == 48 } ? units : units / 10 * 10 + 1
    }

    static func < (left: Fixed, right: Fixed) -> Bool { left.units < right.units }
    static func - (left: Fixed, right: Fixed) -> Fixed { Fixed(units: left.units - right.units) }
    static func * (left: Fixed, right: Fixed) -> Fixed { scaled(left, by: right.units, over: one) }
    static func / (left: Fixed, right: Fixed) -> Fixed { scaled(left, by: one, over: max(right.units, 1)) }
    private static func scaled(_ left: Fixed, by factor: Int128, over divisor: Int128) -> Fixed {
        let (product, overflow) = left.units.multipliedReportingOverflow(by: factor)
        return Fixed(units: (overflow ? .max : product) / divisor)
    }

    /// No step, or a step of zero, is no rule.
    func fits(_ step: Fixed?) -> Bool { floored(to: step) == self }
    func floored(to step: Fixed?) -> Fixed {
        guard let step, step.units > 0 else { return self }
        return Fixed(units: units - units % step.units)
    }

    /// Plain notation, cut off after `places` digits (at most 10).
    func text(_ places: Int) -> String {
        let whole = String(Int(clamping: units.magnitude / UInt128(Fixed.one)))
        let part = String(Int(truncatingIfNeeded: units.magnitude % UInt128(Fixed.one) + UInt128(Fixed.one)))
            .dropFirst()
        return (units < 0 ? "-" : "") + (places > 0 ? "\(whole).\(part.prefix(places))" : whole)
    }
    /// The shortest plain notation.
    var text: String { text(places) }
    /// Digits after the point, trailing zeros not counted.
    var places: Int { 10 - text(10).suffix(10).reversed().prefix { $0 == "0" }.count }
}
