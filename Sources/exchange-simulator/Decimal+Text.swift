import Exchanges
import Foundation

extension Decimal {
    /// Plain notation, cut off after `places` digits (at least 1), filled up with zeros.
    func text(_ places: Int) -> String {
        let parts = "\(rounded(places: places, .down))".split(separator: "."), digits = parts.count > 1 ? parts[1] : ""
        return "\(parts[0]).\(digits)\(String(repeating: "0", count: max(0, places - digits.count)))"
    }
}
