import Foundation

/// What a request asks for.
enum Action: String, Decodable {
    case time, instruments, tickers, place, cancel, query, open, history
    /// Always the same: what clients ask for that has nothing to do with trading here.
    case fixed
    var isPublic: Bool { [.time, .instruments, .tickers, .fixed].contains(self) }
}

/// What fields of a request must look like: their names, the pattern of their values joined by spaces, the refusal.
struct Check: Decodable {
    let fields: [String], pattern: NSRegularExpression, refusal: String

    init(from decoder: any Decoder) throws {
        let texts = try [String](from: decoder)
        fields = texts[0].split(separator: " ").map(String.init)
        (pattern, refusal) = (try NSRegularExpression(pattern: "^(?:\(texts[1]))\\z"), texts[2])
    }
}

struct Endpoint: Decodable {
    let action: Action
    /// Binance's request weight, also for one or some markets; Bybit's requests a second, 0: not counted.
    let cost: Int, costOfOne: Int?
    let checks: [Check]?
}

/// An exchange's words, from `answers/speech.json`.
struct Speech: Decodable {
    /// By `METHOD /path`.
    let endpoints: [String: Endpoint]
    /// What answers say of an order, by its state.
    let states: [String: [String: String]]
    /// Names of fields: of a new order, then of an order's two ids and of several symbols.
    let symbol, side, type, amount, price, lifetime, client, orderID, orderClient: String
    let several: String?
    /// What makes an order post-only, and what makes its amount one of the quote currency, which stands in a field then.
    let postOnly, inQuote: Check
    let quoteAmount: String
    /// Whether unknown orders and post-only orders that would match are refused; whether client ids may come again.
    let refusesUnknown, refusesTakers, reusesClients: Bool
    /// Format of an order's id; JSON of a client id that was not given; credentials when the environment has none.
    let orderIDs, noClient, key, secret: String
}

/// Answer texts by name, with `%name%` where a value goes.
private let templates: [Substring: [Substring]] = Dictionary(
    String(decoding: PackageResources.templates_txt, as: UTF8.self).split(separator: "\n").map { line in
        let parts = line.split(separator: " ", maxSplits: 1)
        return (parts[0], parts[1].split(separator: "%", omittingEmptySubsequences: false))
    }, uniquingKeysWith: { first, _ in first })

/// The template `name` of `answers/templates.txt` filled in, or its variant `name.variant` where there is one.
func render(_ name: String, variant: String = "", _ values: [String: String]) -> String {
    var text = ""
    for (index, part) in (templates["\(name).\(variant)"] ?? templates[name[...]] ?? []).enumerated() {
        text += index % 2 == 0 ? part : Substring(values[String(part)] ?? "")
    }
    return text
}
