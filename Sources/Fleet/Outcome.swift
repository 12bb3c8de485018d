package import Exchanges
internal import Foundation

/// How a job ended, without what depends on who did it and when. `json` is the middle of a result object: the members
/// `status`, `data`, `error` and `source`.
package struct Outcome: Sendable {
    /// Where a ticker came from: memory, Redis, or the exchange.
    package enum Source: String, Sendable, CaseIterable { case l1, l2, exchange }
    package enum Status: String, Sendable, CaseIterable { case ok, rejected, failed, expired, unknown }

    package let status: Status
    package let json: String

    /// `data` is a whole JSON value.
    package static func ok(_ data: String, source: Source? = nil) -> Outcome {
        Outcome(
            status: .ok,
            json: #""status":"ok","data":\#(data)"# + (source.map { #","source":"\#($0.rawValue)""# } ?? ""))
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

    /// Takes up an outcome that was written before, e.g. in an order's journal.
    package static func written(_ json: String) -> Outcome? {
        Status.allCases.first { json.hasPrefix(#""status":"\#($0.rawValue)""#) }.map { Outcome(status: $0, json: json) }
    }

    /// `code: message` of an outcome that is an error.
    var error: String {
        let error = jsonObject("{\(json)}")["error"] as? [String: Any]
        return "\(error?["code"] ?? status.rawValue): \(error?["message"] ?? "")"
    }

    /// The whole result object of the contract. Times are unix milliseconds.
    package func result(of job: Job, worker: String, startedMs: Int64, finishedMs: Int64) -> String {
        let pieces = [
            #"{"id":""#, job.id, #"","kind":""#, job.kind.rawValue, #"","exchange":""#, job.exchange.rawValue, #"","#,
            json,
            #","attempt":"#, String(job.attempt), #","worker":"#, quoted(worker), #","enqueued_ms":"#,
            String(job.enqueuedMs), #","started_ms":"#, String(startedMs), #","finished_ms":"#, String(finishedMs),
            job.traceparent.map { #","traceparent":"\#($0)"}"# } ?? "}",
        ]
        // In one go: this is written for every job.
        return String(unsafeUninitializedCapacity: pieces.reduce(0) { $0 + $1.utf8.count }) { text in
            var end = 0
            for var piece in pieces {
                end = piece.withUTF8 { text[end...].update(fromContentsOf: $0) }
            }
            return end
        }
    }
}

/// The text as a JSON string.
package func quoted(_ text: String) -> String {
    let isPlain = text.utf8.allSatisfy { $0 >= 32 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
    return isPlain ? "\"\(text)\"" : json(text)
}

/// A value as JSON, member names in snake case, nil members left out: a ticker or an order as the contract has it.
func json(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    return (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "null"
}
