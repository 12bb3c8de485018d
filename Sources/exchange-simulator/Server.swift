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

/// Routes requests to the three exchanges and `/control`, and applies the faults around them.
final class Server: Sendable {
    private static let dialects: [any Dialect.Type] = [Binance.self, Bybit.self, Kraken.self]
    private let venues: Mutex<[Venue]>

    /// - Throws: when a secret's file cannot be read, or Kraken's secret is not base64.
    init(seed: UInt64, limited: Bool) throws {
        let environment = ProcessInfo.processInfo.environment
        let venues = try Server.dialects.map { dialect in
            func secret(_ kind: String) throws -> String? {
                let name = "\(dialect.name.uppercased())_\(kind)"
                let file = try environment["\(name)_FILE"].map { try String(contentsOfFile: $0, encoding: .utf8) }
                return environment[name] ?? file?.trimmingCharacters(in: .whitespacesAndNewlines)
            }
            let fallback = "sim-\(dialect.name)-secret", given = try secret("SECRET")
            // Kraken's secret is written in base64, the others are used as they are.
            let bytes = dialect == Kraken.self ? given.flatMap { Data(base64Encoded: $0) } : given.map { Data($0.utf8) }
            if given != nil, bytes == nil { throw ValidationError("\(dialect.name.uppercased())_SECRET is not base64") }
            guard let speech = Speech.all[dialect.name] else { throw CocoaError(.coderReadCorrupt) }
            let markets = dialect.instruments.map { Market($1, id: $0, speech.entry, rules: speech.rules, seed: seed) }
            var venue = Venue(
                dialect.name, speech, key: try secret("KEY") ?? "sim-\(dialect.name)-key",
                secret: Array(bytes ?? Data(fallback.utf8)), markets: markets, limited: limited, now: Server.now)
            venue.faults.random.state = seed
            return venue
        }
        self.venues = Mutex(venues)
    }
    /// Unix ms.
    private static var now: Int { Int(Date().timeIntervalSince1970 * 1000) }

    func respond(_ request: Request, _ context: Context) async throws -> Response {
        let target = (request.head.path ?? "/").split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = target[0].split(separator: "/", maxSplits: 1),
            index = Server.dialects.firstIndex { $0.name == path.first ?? "" }
        let headers = request.headers,
            hasBody = headers[.contentLength] ?? "0" != "0" || headers[.transferEncoding] != nil
        let body = hasBody ? try? await request.body.collect(upTo: 65_536) : ByteBuffer()
        let call = Call(
            method: request.method.rawValue, path: path.count > 1 ? "/\(path[1])" : "/",
            query: target.count > 1 ? String(target[1]) : "",
            body: String(buffer: body ?? ByteBuffer()), address: context.channel.remoteAddress?.ipAddress ?? "",
            headers: headers)
        guard let index else { return reply(control("\(call.method) \(target[0])", call)) }
        if body == nil { return reply(venues.withLock { $0[index].fail("413") }) }
        guard let answer = try await answer(call, index) else {
            try await context.channel.close()
            return Response(status: .ok)
        }
        return reply(answer)
    }

    private func reply(_ answer: Answer) -> Response {
        let type =
            answer.body.hasPrefix("<")
            ? "text/html" : answer.body.hasPrefix("{") || answer.body.hasPrefix("[") ? "application/json" : "text/plain"
        var fields: HTTPFields = [.contentType: type]
        for (name, value) in answer.headers { if let name = HTTPField.Name(name) { fields[name] = value } }
        return Response(
            status: .init(code: answer.status), headers: fields,
            body: .init(byteBuffer: ByteBuffer(string: answer.body)))
    }

    /// Nil: close the connection without a word.
    private func answer(_ call: Call, _ index: Int) async throws -> Answer? {
        let dialect = Server.dialects[index]
        let latency = venues.withLock { venues in
            let known = venues[index].speech.endpoints[call.endpoint] != nil
            venues[index].requests[known ? call.endpoint : "unknown", default: 0] += 1
            return venues[index].faults.whole("latency_ms")
        }
        if latency > 0 { try await Task.sleep(for: .milliseconds(latency)) }
        return venues.withLock { venues in
            Server.settle(&venues[index], dialect)
            return Server.perform(call, &venues[index], dialect)
        }
    }

    /// Brings an exchange to the present: late orders reach the engine when they are due, if they are still fresh then.
    private static func settle(_ venue: inout Venue, _ dialect: any Dialect.Type) {
        let now = now
        while let next = venue.late.indices.min(by: { venue.late[$0].due < venue.late[$1].due }),
            venue.late[next].due <= now
        {
            let (due, call) = venue.late.remove(at: next)
            venue.settle(at: due)
            if (try? dialect.fresh(call, venue)) != nil { _ = try? dialect.execute(call, &venue) }
        }
        venue.settle(at: now)
    }

    private static func perform(_ call: Call, _ venue: inout Venue, _ dialect: any Dialect.Type) -> Answer? {
        let places = call.endpoint == venue.speech.placing
        if venue.faults.draw("rate_limit_rate") {
            var answer = venue.fail(venue.faults.chance(0.25) ? "418" : "429", ["until": "\(venue.now)"])
            answer.headers = [("Retry-After", "\(venue.faults.whole("retry_after_s"))")]
            return venue.tally(answer, ["refused_for_limits"])
        }
        if venue.faults.draw("error_rate") { return broken(&venue) }
        if venue.faults.draw("drop_before_rate") { return nil }
        var answer = Answer(body: "")
        do {
            if venue.limited { try dialect.admit(call, &venue) }
            guard venue.speech.endpoints[call.endpoint] != nil else {
                throw venue.fail("404", ["path": call.path, "method": call.method])
            }
            if !venue.speech.public.contains(where: call.path.hasPrefix) { try dialect.authorize(call, &venue) }
            if places, venue.faults.draw("late_accept_rate") {
                venue.late.append((venue.now + venue.faults.whole("late_accept_ms"), call))
                return venue.faults.chance(0.5) ? nil : broken(&venue)
            }
            answer.body = try dialect.execute(call, &venue)
        } catch { answer = error as? Answer ?? venue.fail("500") }
        if venue.limited { answer.headers += dialect.headers(call, &venue) }
        return venue.faults.draw("drop_after_rate") ? nil : answer
    }
    private static func broken(_ venue: inout Venue) -> Answer {
        if venue.faults.chance(0.4) { return venue.fail("500") }
        let page =
            "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
        return venue.faults.chance(0.5) ? Answer(status: 502, body: page) : Answer(status: 503, body: "")
    }

    private func control(_ endpoint: String, _ call: Call) -> Answer {
        venues.withLock { venues in
            for (index, dialect) in Server.dialects.enumerated() { Server.settle(&venues[index], dialect) }
            func all(_ text: (Venue) -> String) -> Answer {
                Answer(body: "{\(venues.map { "\"\($0.name)\":\(text($0))" }.joined(separator: ","))}")
            }
            switch endpoint {
            case "GET /healthz": return Answer(body: "{\"status\":\"ok\"}")
            case "GET /control/orders": return all(\.audit)
            case "GET /control/stats": return all(\.statistics)
            case "GET /control": break
            case "DELETE /control": for index in venues.indices { venues[index].faults.clear() }
            case "POST /control":
                let wanted = (try? JSONSerialization.jsonObject(with: Data(call.body.utf8))) as? [String: Any]
                guard let wanted else {
                    return Faults.refusal("the body is not a JSON object: expected {\"exchange\", \"error_rate\", ...}")
                }
                let chosen = venues.indices.filter {
                    wanted["exchange"] == nil || wanted["exchange"] as? String == venues[$0].name
                }
                if chosen.isEmpty {
                    return Faults.refusal("exchange = \(wanted["exchange"] ?? ""): expected binance, bybit or kraken")
                }
                do { for index in chosen { try venues[index].faults.change(wanted) } } catch {
                    return error as? Answer ?? Answer(status: 400, body: "")
                }
            default: return Answer(status: 404, body: "{\"error\":\"not found\"}")
            }
            return all(\.faults.text)
        }
    }
}
