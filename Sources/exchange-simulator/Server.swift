import Exchanges
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
    private let exchanges: Mutex<[any Dialect]>

    /// - Throws: when the file of a secret cannot be read.
    init(seed: UInt64, limited: Bool, markets: Int) throws {
        let now = Server.now
        func venue(_ name: String) throws -> Venue {
            try Venue(name, limited: limited, markets: markets, seed: seed, now: now)
        }
        exchanges = Mutex([
            Binance(venue: try venue("binance")), Bybit(venue: try venue("bybit")), Kraken(venue: try venue("kraken")),
        ])
    }
    /// Unix ms.
    private static var now: Int { Int(Date().timeIntervalSince1970 * 1000) }

    func respond(_ request: Request, _ context: Context) async throws -> Response {
        let body = try? await request.body.collect(upTo: 65_536)
        let call = Call(
            request.head, body: String(buffer: body ?? ByteBuffer()),
            address: context.channel.remoteAddress?.ipAddress ?? "")
        let latency = exchanges.withLock { exchanges in
            exchanges.first { $0.venue.name == call.prefix }?.venue.faults.whole("latency_ms") ?? 0
        }
        if latency > 0 { try await Task.sleep(for: .milliseconds(latency)) }
        let answer = exchanges.withLock { exchanges -> Answer? in
            let now = Server.now
            for exchange in exchanges { exchange.settle(at: now) }
            let exchange = exchanges.first { $0.venue.name == call.prefix }
            guard let exchange else { return control(call, exchanges.map(\.venue)) }
            return body == nil ? exchange.venue.fail("413") : exchange.answer(call)
        }
        guard let answer else {
            try await context.channel.close()
            return Response(status: .ok)
        }
        let isJSON = answer.body.hasPrefix("{") || answer.body.hasPrefix("[")
        var fields: HTTPFields = [.contentType: isJSON ? "application/json" : "text/html"]
        for (name, value) in answer.headers { if let name = HTTPField.Name(name) { fields[name] = value } }
        let text = ByteBuffer(string: call.method == "HEAD" ? "" : answer.body)
        return Response(status: .init(code: answer.status), headers: fields, body: .init(byteBuffer: text))
    }

    private func control(_ call: Call, _ venues: [Venue]) -> Answer {
        func all(_ text: (Venue) -> String) -> Answer {
            Answer(body: "{\(venues.map { "\"\($0.name)\":\(text($0))" }.joined(separator: ","))}")
        }
        switch "\(call.method) /\(call.prefix)\(call.path)" {
        case "GET /healthz/": return Answer(body: "{\"status\":\"ok\"}")
        case "GET /control/orders": return all(\.audit)
        case "GET /control/stats": return all(\.statistics)
        case "GET /control/": break
        case "DELETE /control/": for venue in venues { venue.faults = Faults(random: venue.faults.random) }
        case "POST /control/":
            let wanted = jsonObject(call.body), name = wanted["exchange"]
            let chosen = venues.filter { name == nil || name as? String == $0.name }
            var fault: String?
            let isNone = call.body.filter { !$0.isWhitespace } == "{}"
            if wanted.isEmpty && !isNone || chosen.isEmpty {
                fault = "expected an object of faults, with one exchange or none"
            }
            for venue in chosen where fault == nil { fault = venue.faults.change(wanted) }
            if let fault { return Answer(status: 400, body: jsonText(["error": fault])) }
        default: return Answer(status: 404, body: "{\"error\":\"not found\"}")
        }
        return all { jsonText($0.faults.values) }
    }
}
