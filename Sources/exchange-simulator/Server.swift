import ArgumentParser
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// Gives a handler its connection, which some faults close.
struct Context: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) { (coreContext, channel) = (.init(source: source), source.channel) }
}

/// Takes requests for the three exchanges and for `/control`.
final class Server: Sendable {
    private static let dialects: [(name: String, type: any Dialect.Type)] = [
        ("binance", Binance.self), ("bybit", Bybit.self), ("kraken", Kraken.self),
    ]
    private let exchanges: Mutex<[any Dialect]>

    /// - Throws: when a secret's file cannot be read, or Kraken's secret is not base64.
    init(seed: UInt64, limited: Bool) throws {
        exchanges = Mutex(
            try Server.dialects.map { name, type in
                type.init(venue: try Venue(name, limited: limited, seed: seed, now: Server.now))
            })
    }
    /// Unix ms.
    private static var now: Int { Int(Date().timeIntervalSince1970 * 1000) }

    func respond(_ request: Request, _ context: Context) async throws -> Response {
        let body = try? await request.body.collect(upTo: 65_536)
        let call = Call(
            request.head, body: String(buffer: body ?? ByteBuffer()),
            address: context.channel.remoteAddress?.ipAddress ?? "")
        guard let index = Server.dialects.firstIndex(where: { $0.name == call.prefix }) else {
            return reply(exchanges.withLock { control(call, $0) })
        }
        let latency = exchanges.withLock { $0[index].venue.faults.whole("latency_ms") }
        if latency > 0 { try await Task.sleep(for: .milliseconds(latency)) }
        let answer = exchanges.withLock { exchanges in
            exchanges[index].settle(at: Server.now)
            return body == nil ? exchanges[index].venue.fail("413") : exchanges[index].answer(call)
        }
        if let answer { return reply(answer) }
        try await context.channel.close()
        return Response(status: .ok)
    }
    private func reply(_ answer: Answer) -> Response {
        let isJSON = answer.body.hasPrefix("{") || answer.body.hasPrefix("[")
        var fields: HTTPFields = [.contentType: isJSON ? "application/json" : "text/html"]
        for (name, value) in answer.headers { if let name = HTTPField.Name(name) { fields[name] = value } }
        let body = ByteBuffer(string: answer.body)
        return Response(status: .init(code: answer.status), headers: fields, body: .init(byteBuffer: body))
    }

    private func control(_ call: Call, _ exchanges: [any Dialect]) -> Answer {
        for exchange in exchanges { exchange.settle(at: Server.now) }
        let venues = exchanges.map(\.venue)
        func all(_ text: (Venue) -> String) -> Answer {
            Answer(body: "{\(venues.map { "\"\($0.name)\":\(text($0))" }.joined(separator: ","))}")
        }
        switch "\(call.method) /\(call.prefix)\(call.path)" {
        case "GET /healthz/": return Answer(body: "{\"status\":\"ok\"}")
        case "GET /control/orders": return all(\.audit)
        case "GET /control/stats": return all(\.statistics)
        case "GET /control/": break
        case "DELETE /control/": for venue in venues { venue.faults = Faults(seed: 1) }
        case "POST /control/":
            let wanted = object(Array(call.body.utf8)), name = wanted["exchange"] ?? ""
            let chosen = venues.filter { wanted["exchange"] == nil || name as? String == $0.name }
            if wanted.isEmpty {
                return Faults.refusal("the body is no JSON object, or empty: expected {\"error_rate\": …}")
            }
            if chosen.isEmpty { return Faults.refusal("exchange = \(name): expected binance, bybit or kraken") }
            do { for venue in chosen { try venue.faults.change(wanted) } } catch {
                return error as? Answer ?? Answer(status: 500, body: "")
            }
        default: return Answer(status: 404, body: "{\"error\":\"not found\"}")
        }
        return all(\.faults.text)
    }
}
