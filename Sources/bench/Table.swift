internal import ArgumentParser
internal import Foundation

/// Why there is no figure.
struct NotMeasured: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Named rows of figures. A column's name ends with its unit; NaN is a figure that does not apply.
struct Table {
    let columns: [String]
    var rows: [(name: String, values: [Double])] = []
    /// Whether every figure is what it has to be.
    var passes = true

    /// The figure of a row and a column that are there.
    subscript(_ row: String, _ column: String) -> Double {
        guard let row = rows.first(where: { $0.name == row }), let index = columns.firstIndex(of: column) else {
            preconditionFailure("no \(column) of \(row)")
        }
        return row.values[index]
    }

    func show(json: Bool) {
        #if DEBUG
            FileHandle.standardError.write(Data("bench: a debug build, its figures mean nothing\n".utf8))
        #endif
        if json {
            let objects = rows.map { row in
                let members = zip(columns, row.values).map { ",\"\($0)\":\($1.isNaN ? "null" : "\($1)")" }
                return "{\"name\":\"\(row.name)\"\(members.joined())}"
            }
            return print("{\"rows\":[\(objects.joined(separator: ",\n"))]}")
        }
        let width = rows.map(\.name.count).max() ?? 0
        let cells = [("", columns)] + rows.map { ($0.name, $0.values.map(shown)) }
        for (name, texts) in cells {
            let padded = zip(columns, texts).map { column, text in
                String(repeating: " ", count: max(11, column.count + 2) - text.count) + text
            }
            print(name.padding(toLength: width, withPad: " ", startingAt: 0) + padded.joined())
        }
    }

    private func shown(_ value: Double) -> String {
        if value.isNaN { return "-" }
        return String(format: value >= 100 || value == value.rounded() ? "%.0f" : value >= 10 ? "%.1f" : "%.3f", value)
    }
}

/// Reads a number of the command line.
@Sendable func count(_ text: String) throws -> Int {
    guard let number = Int(text), 1...10_000_000 ~= number else {
        throw ValidationError("'\(text)': expected a whole number from 1 to 10000000")
    }
    return number
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

/// Nanoseconds of a clock that only goes forward.
func nowNs() -> UInt64 { DispatchTime.now().uptimeNanoseconds }
