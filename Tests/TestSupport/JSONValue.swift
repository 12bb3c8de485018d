package import Foundation

/// Any JSON, for looking into results and vectors.
package enum JSONValue: Sendable, Equatable, Decodable {
    case null
    case bool(Bool)
    case number(Decimal)
    case text(String)
    case array([JSONValue])
    case object([String: JSONValue])

    package init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if value.decodeNil() {
            self = .null
        } else if let flag = try? value.decode(Bool.self) {
            self = .bool(flag)
        } else if let number = try? value.decode(Decimal.self) {
            self = .number(number)
        } else if let text = try? value.decode(String.self) {
            self = .text(text)
        } else if let array = try? value.decode([JSONValue].self) {
            self = .array(array)
        } else {
            self = .object(try value.decode([String: JSONValue].self))
        }
    }

    package init(_ text: String) throws { self = try JSONDecoder().decode(Self.self, from: Data(text.utf8)) }
    package init(contentsOf file: URL) throws {
        self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: file))
    }

    package subscript(_ name: String) -> JSONValue {
        if case .object(let members) = self { members[name] ?? .null } else { .null }
    }
    package subscript(_ index: Int) -> JSONValue { index < list.count ? list[index] : .null }

    package var isNull: Bool { self == .null }
    package var list: [JSONValue] { if case .array(let values) = self { values } else { [] } }
    package var members: [String: JSONValue] { if case .object(let members) = self { members } else { [:] } }
    package var text: String? { if case .text(let text) = self { text } else { nil } }
    /// A number, or a text that is one.
    package var double: Double? {
        switch self {
        case .number(let number): Double("\(number)")
        case .text(let text): Double(text)
        default: nil
        }
    }
    package var int: Int? { double.map { Int($0) } }
}
