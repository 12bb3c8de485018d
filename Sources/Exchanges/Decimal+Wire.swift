package import Foundation

extension Decimal {
    /// Reads a plain decimal: digits, at most one point with digits on both sides, at most 31 characters. No sign, no
    /// exponent, no spaces: what an exchange takes as a price or an amount.
    package init?(wire text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        let isPlain = parts.allSatisfy { part in !part.isEmpty && part.allSatisfy { (48...57).contains($0) } }
        guard isPlain, text.utf8.count <= 31 else { return nil }
        self.init(string: text, locale: Locale(identifier: "en_US_POSIX"))
    }

    func isMultiple(of step: Decimal) -> Bool { (self / step).rounded(places: 0) * step == self }

    package func rounded(places: Int, _ mode: RoundingMode = .plain) -> Decimal {
        var (value, result) = (self, Decimal())
        NSDecimalRound(&result, &value, places, mode)
        return result
    }
}
