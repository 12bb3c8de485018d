internal import ArgumentParser
internal import Exchanges
internal import Foundation
internal import Redis

/// Names and values that stand one after the other, as in a stream entry or a hash, in their order.
func pairs(_ texts: [String]) -> [(name: String, value: String)] {
    stride(from: 0, to: texts.count - 1, by: 2).map { (texts[$0], texts[$0 + 1]) }
}

func pairs(_ reply: RedisValue?) -> [(name: String, value: String)] { pairs(reply?.array?.map { $0.text ?? "" } ?? []) }

/// Prints objects as one JSON array, one a line, or some of their members as a table: times (ms) in words, `-` for
/// what is not there.
func show(_ objects: [[String: Any]], _ columns: [String], asJSON: Bool) {
    if asJSON { return print("[" + objects.map(jsonText).joined(separator: ",\n") + "]") }
    let rows = objects.map { object in
        columns.map { name in
            switch object[name] {
            case let ms as Int where name.hasSuffix("_ms"): span(ms)
            case let flag as Bool: flag ? "yes" : "-"
            case nil, is NSNull: "-"
            case let value?: "\(value)"
            }
        }
    }
    print(table([columns.map { $0.replacing("_ms", with: "").replacing("_", with: " ") }] + rows))
}

/// Prints a result, as it is or as a table. - Throws: exit code 1 when the job did not end `ok`.
func show(_ result: String, asJSON: Bool) throws {
    let object = jsonObject(result)
    if asJSON {
        print(result)
    } else {
        var shown = ["id", "exchange", "kind", "status", "source"].flatMap { rows($0, object[$0]) }
        shown += rows("", object["error"]) + rows("", object["data"])
        if let finished = object["finished_ms"] as? Int, let enqueued = object["enqueued_ms"] as? Int {
            shown.append(["took", "\(finished - enqueued) ms"])
        }
        print(table(aligned(shown)))
    }
    if object["status"] as? String != "ok" { throw ExitCode(1) }
    // As the order's id may be mistyped.
    if object["kind"] as? String == "cancel_order", (object["data"] as? [String: Any])?["exchange_order_id"] == nil {
        complain("no such order had been sent; it is prevented for seven days")
    }
}

/// A member of a result: a row; of an object a row a member; nothing where it is missing.
private func rows(_ name: String, _ value: Any?) -> [[String]] {
    guard let object = value as? [String: Any] else { return value.map { [[name, "\($0)"]] } ?? [] }
    return object.sorted { $0.key < $1.key }.flatMap { rows(name.isEmpty ? $0.key : "\(name) \($0.key)", $0.value) }
}

/// Shifts the plain decimals of the second column so that their points stand below each other.
private func aligned(_ rows: [[String]]) -> [[String]] {
    let whole = rows.map { $0[1].wholeMatch(of: /(-?\d+)\.\d+/)?.1.count }
    let width = whole.compactMap(\.self).max() ?? 0
    return zip(rows, whole).map { [$0[0], String(repeating: " ", count: width - ($1 ?? width)) + $0[1]] }
}

/// Rows as columns two spaces apart, each as wide as its widest cell. What would be a command to the terminal is not
/// passed on to it.
func table(_ rows: [[String]]) -> String {
    let rows = rows.map { $0.map { $0.replacing(/\p{Cc}/, with: "\u{FFFD}") } }
    let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
        let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
        return cells.joined(separator: "  ").replacing(/\ +$/, with: "")
    }.joined(separator: "\n")
}

/// A length of time on the command line: 90s, 5m, 2h, 1d; a plain number is seconds. At most a year.
struct Span: ExpressibleByArgument {
    let ms: Int

    init?(argument: String) {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        let text = argument.last?.isNumber == true ? argument + "s" : argument
        guard let unit = text.last.flatMap({ units[$0] }), let number = Double(text.dropLast()),
            (0.001...31_536_000).contains(number * unit)
        else { return nil }
        ms = Int(number * unit * 1000)
    }
}

/// A point in time on the command line, in unix milliseconds: ISO 8601 with its zone, or the number itself. Smaller
/// numbers would be seconds, which nothing else here is in.
struct Instant: ExpressibleByArgument {
    let ms: Int

    init?(argument: String) {
        let date = try? iso8601.parse(argument)
        let ms = date.map { ($0.timeIntervalSince1970 * 1000).rounded() } ?? Double(argument) ?? 0
        guard (1e12..<1e13).contains(ms) else { return nil }
        self.ms = Int(ms)
    }
}

private let iso8601 = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

/// A time (unix ms) in UTC: `2026-12-01T08:00:00.250Z`.
func utc(_ ms: Int) -> String {
    // A date counts seconds, and the style cuts what is a little below a millisecond: half of one more is safe.
    Date(timeIntervalSince1970: (Double(ms) + 0.5) / 1000).formatted(iso8601)
}

/// A length of time (ms) by its two largest units: `1h 5m`, `30s`.
func span(_ ms: Int) -> String {
    let units = Duration.UnitsFormatStyle.units(
        allowed: [.days, .hours, .minutes, .seconds], width: .narrow, maximumUnitCount: 2,
        fractionalPart: .hide(rounded: .down))
    return Duration.milliseconds(ms).formatted(units.locale(Locale(identifier: "en_US")))
}
