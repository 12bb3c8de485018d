package import Exchanges
internal import Foundation

/// How a job ended, without what depends on who did it and when. `json` is the middle of a result object: the members
/// `status`, `data`, `error` and `source`.
package struct Outcome: Sendable {
    package enum Status: String, Sendable, CaseIterable { case ok, rejected, failed, expired, unknown }

    package let status: Status
    package let json: String

    /// - Parameter data: a whole JSON value.
    package static func ok(_ data: String, source: String? = nil) -> Outcome {
        Outcome(
            status: .ok, json: #""status":"ok","data":\#(data)"# + (source.map { #","source":"\#($0)""# } ?? ""))
    }

    package static func ended(
        _ status: Status, code: String, _ message: String, exchangeCode: String? = nil, data: String? = nil
    ) -> Outcome {
        let exchange = exchangeCode.map { #","exchange_code":\#(quoted($0))"# } ?? ""
        let data = data.map { #","data":\#($0)"# } ?? ""
        let error = #"{"code":\#(quoted(code)),"message":\#(quoted(message))\#(exchange)}"#
        return Outcome(status: status, json: #""status":"\#(status.rawValue)"\#(data),"error":\#(error)"#)
    }

    package static func ended(_ status: Status, _ error: ExchangeError) -> Outcome {
        ended(status, code: error.code, error.message, exchangeCode: error.exchangeCode)
    }

    package init(status: Status, json: String) {
        self.status = status
        self.json = json
    }

    /// Takes up an outcome that was written before, e.g. in an order's journal.
    package init?(json: String) {
        let found = Status.allCases.first { json.hasPrefix(#""status":"\#($0.rawValue)""#) }
        guard let found else { return nil }
        self.init(status: found, json: json)
    }

    /// The whole result object of the contract. Times are unix milliseconds.
    package func result(of job: Job, attempt: Int, worker: String, startedMs: Int64, finishedMs: Int64) -> String {
        let trace = job.traceparent.map { #","traceparent":"\#($0)""# } ?? ""
        return #"{"id":"\#(job.id)","kind":"\#(job.kind.rawValue)","exchange":"\#(job.exchange.rawValue)",\#(json)"#
            + #","attempt":\#(attempt),"worker":"\#(worker)","enqueued_ms":\#(job.enqueuedMs)"#
            + #","started_ms":\#(startedMs),"finished_ms":\#(finishedMs)\#(trace)}"#
    }
}

/// The text as a JSON string.
package func quoted(_ text: String) -> String {
    var out = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": out += "\\\""
        case "\\": out += "\\\\"
        case "\u{0}"..<" ": out += "\\u00" + Signing.hex([UInt8(scalar.value)])
        default: out.unicodeScalars.append(scalar)
        }
    }
    return out + "\""
}

/// A ticker or an order as the contract's JSON object, nil members left out.
func json(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    return (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "null"
}
