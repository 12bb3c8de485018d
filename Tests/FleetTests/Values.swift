import Foundation
import Logging
import Redis
import TestSupport
import Testing

@testable import Exchanges
@testable import Fleet

// Everything in this target that calls an initializer of the library, so that a changed one is changed here alone.

/// An instant that many seconds after a fixed one.
func at(_ seconds: Double) -> ContinuousClock.Instant { start + .seconds(seconds) }
private let start = ContinuousClock.now

func breaker(threshold: Int = 3, cooldown: Double = 10) -> Breaker {
    Breaker(threshold: threshold, cooldown: .seconds(cooldown))
}

func permit(_ breaker: inout Breaker, _ time: ContinuousClock.Instant) throws -> Breaker.Permit {
    let permit = breaker.permit(at: time)
    return try #require(permit)
}

/// Three calls at once, and one a second.
let slowCharge = Charge("slow", .account, 1, burst: 3, perSecond: 1)

func cache(capacity: Int) -> Cache<String, Int> { Cache(capacity: capacity) }

func job(_ kind: Kind, _ fields: [String: String], entryId: String = "1700000000000-0") -> Job {
    job(kind, fields.sorted { $0.key < $1.key }.map { ($0.key, Array($0.value.utf8)) }, entryId: entryId)
}

func job(_ kind: Kind, _ fields: [(String, [UInt8])], entryId: String = "1700000000000-0") -> Job {
    let values = fields.flatMap { [RedisValue.bytes(Array($0.0.utf8)), .bytes($0.1)] }
    return Job(exchange: .binance, kind: kind, entryId: entryId, fields: values)
}

func get(_ url: String) -> HTTPRequest { HTTPRequest(.get, url) }
func post(_ url: String, _ body: String) -> HTTPRequest { HTTPRequest(.post, url, body: body) }
func delete(_ url: String) -> HTTPRequest { HTTPRequest(.delete, url) }

/// A question about an order of a market that is not real.
func query() -> Call {
    let market = Instrument(
        symbol: "BTC/USDT", id: "BTCUSDT", tick: 1, step: 1, minAmount: nil, maxAmount: nil, minNotional: nil,
        isTrading: true)
    return .query(OrderReference("a", market))
}

func kraken(_ url: String) throws -> any ExchangeAPI {
    try #require(try Configuration(["KRAKEN_URL": url, "FLEET_EXCHANGES": "kraken"]).apis.first)
}

/// A session without what is kept in Redis.
@LaneActor
func session(
    with api: any ExchangeAPI, _ http: HTTPClient, limiter: Limiter? = nil,
    nowMs: @escaping @Sendable () -> Int64 = wallClockMs,
    nextNonce: @escaping @LaneActor () async throws(RedisError) -> UInt64 = { 1 }
) throws -> ExchangeSession {
    let (keys, log) = (Keys(api.exchange), Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    return ExchangeSession(
        api: api, http: http, limiter: limiter, events: Events(keys: keys, consumer: "test", log: log),
        redis: RedisClient(url: try RedisURL("unix:///none"), loop: LaneActor.loop, name: "test"), keys: keys,
        metrics: LaneMetrics(api.exchange), log: log, nowMs: nowMs, nextNonce: nextNonce)
}

/// A market list of Binance that has BTC/USDT.
let binanceMarkets = #"""
    {"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[
    {"filterType":"PRICE_FILTER","tickSize":"0.01"},
    {"filterType":"LOT_SIZE","minQty":"0.00001","maxQty":"9000","stepSize":"0.00001"}]}]}
    """#

/// An order of Kraken's BTC/USD.
func reference() -> OrderReference {
    let market = Instrument(
        symbol: "BTC/USD", id: "XXBTZUSD", tick: 1, step: 1, minAmount: nil, maxAmount: nil, minNotional: nil,
        isTrading: true)
    return OrderReference("00000000-0000-8000-8000-000000000000", market)
}

/// The faults of an environment, one a line; nil: it is usable.
func faults(_ environment: [String: String]) -> String? {
    do {
        _ = try Configuration(environment)
        return nil
    } catch {
        return error.description
    }
}

/// A job that has to be refused, and what the sentence says.
struct BadJob: Sendable, CustomTestStringConvertible {
    let kind: Kind
    let fields: [(String, [UInt8])]
    let says: [String]
    var testDescription: String { "\(kind.rawValue) \(says)" }

    init(_ kind: Kind, _ fields: [String: String], says: [String]) {
        self.init(kind, bytes: fields.mapValues { Array($0.utf8) }, says: says)
    }

    init(_ kind: Kind, bytes fields: [String: [UInt8]], says: [String]) {
        self.kind = kind
        self.fields = fields.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        self.says = says
    }

    private static let limit = [
        "id": "o-1", "symbol": "BTC/USDT", "side": "buy", "type": "limit", "amount": "0.01", "price": "50000",
    ]
    private static let market = ["id": "o-1", "symbol": "BTC/USDT", "side": "sell", "type": "market", "amount": "1"]

    private static func limit(_ changed: [String: String?], says: [String]) -> BadJob {
        BadJob(
            .submitOrder,
            limit.merging(changed.compactMapValues { $0 }) { $1 }.filter { changed[$0.key] != .some(nil) }, says: says)
    }

    private static let zeros = String(repeating: "0", count: 32)

    private static func ticker(_ changed: [String: String], says: [String]) -> BadJob {
        BadJob(.fetchTicker, ["symbol": "BTC/USDT"].merging(changed) { $1 }, says: says)
    }

    static let all: [BadJob] = [
        BadJob(.fetchTicker, ["note": "x"], says: ["symbol", "missing", "BASE/QUOTE"]),
        ticker(["symbol": ""], says: ["symbol", "missing"]),
        ticker(["symbol": "BTCUSDT"], says: ["symbol", "'BTCUSDT'"]),
        ticker(["symbol": "btc/usdt"], says: ["symbol", "'btc/usdt'"]),
        ticker(["symbol": "BTC/"], says: ["symbol", "'BTC/'"]),
        ticker(["symbol": "BTC/USDT/EUR"], says: ["symbol"]), ticker(["symbol": "BTC /USDT"], says: ["symbol"]),
        ticker(["symbol": "BTC/USDT\n"], says: ["symbol"]), ticker(["symbol": "B'\"\\/USDT"], says: ["symbol"]),
        ticker(["symbol": String(repeating: "A", count: 1 << 20)], says: ["symbol", "1048576 bytes"]),
        BadJob(.fetchTicker, bytes: ["symbol": [0xff, 0x00, 0xfe, 0x2f]], says: ["symbol", "BASE/QUOTE"]),
        ticker(["max_age_ms": "-1"], says: ["max_age_ms", "'-1'", "from 0"]),
        ticker(["max_age_ms": "1e3"], says: ["max_age_ms", "'1e3'"]),
        ticker(["max_age_ms": "99999999999999999999"], says: ["max_age_ms"]),
        ticker(["max_age_ms": " 5"], says: ["max_age_ms"]), ticker(["max_age_ms": "٣"], says: ["max_age_ms"]),
        ticker(["deadline_ms": "soon"], says: ["deadline_ms", "'soon'", "unix milliseconds"]),
        ticker(["deadline_ms": "-5"], says: ["deadline_ms", "'-5'"]),
        ticker(["max_attempts": "0"], says: ["max_attempts", "'0'", "1 to 100"]),
        ticker(["max_attempts": "1.5"], says: ["max_attempts", "'1.5'"]),
        ticker(["max_attempts": "101"], says: ["max_attempts", "'101'"]),
        ticker(["reply_to": "other:key"], says: ["reply_to", "'other:key'", "fleet:{"]),
        ticker(["reply_to": "fleet:{elsewhere}:reply:x"], says: ["reply_to"]),
        ticker(["result_ttl_s": "-1"], says: ["result_ttl_s", "'-1'"]),
        ticker(["result_ttl_s": "31536001"], says: ["result_ttl_s", "31536000"]),
        ticker(["id": "a b"], says: ["id", "'a b'", "1 to 64"]),
        ticker(["id": String(repeating: "x", count: 65)], says: ["id", "65 bytes", "1 to 64"]),
        ticker(["id": "x\u{0}"], says: ["id"]), ticker(["traceparent": "00-XYZ\""], says: ["traceparent"]),
        ticker(["traceparent": "00-\(zeros)-b7ad6b7169203331-01"], says: ["traceparent", zeros]),
        ticker(["traceparent": "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"], says: ["traceparent"]),
        ticker(["traceparent": "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], says: ["traceparent"]),
        ticker(["traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-"], says: ["traceparent"]),
        BadJob(.refreshCache, ["symbols": "BTC/USDT,,ETH/USDT"], says: ["symbols", "comma separated"]),
        BadJob(.refreshCache, ["symbols": "BTC-USDT"], says: ["symbols", "'BTC-USDT'"]),
        limit(["id": nil], says: ["id", "expected 1 to 64"]), limit(["symbol": nil], says: ["symbol", "missing"]),
        limit(["side": nil], says: ["side", "missing", "buy, sell"]),
        limit(["side": "BUY"], says: ["side", "'BUY'", "buy, sell"]),
        limit(["type": nil], says: ["type", "missing", "market, limit"]),
        limit(["type": "stop"], says: ["type", "'stop'", "market, limit"]),
        limit(["amount": nil], says: ["amount", "missing", "plain decimal"]),
        limit(["amount": "0"], says: ["amount", "'0'", "above 0"]),
        limit(["amount": "-0.1"], says: ["amount", "'-0.1'"]), limit(["amount": "1e-3"], says: ["amount", "'1e-3'"]),
        limit(["amount": "1,5"], says: ["amount", "'1,5'"]), limit(["amount": ".5"], says: ["amount", "'.5'"]),
        limit(["amount": "NaN"], says: ["amount", "'NaN'"]),
        limit(["amount": String(repeating: "9", count: 32)], says: ["amount"]),
        limit(["amount": String(repeating: "9", count: 1 << 20)], says: ["amount", "1048576 bytes"]),
        limit(["price": nil], says: ["price", "missing"]), limit(["price": "0.00"], says: ["price", "'0.00'"]),
        limit(["price": "7.89e-06"], says: ["price", "'7.89e-06'"]),
        limit(["time_in_force": "GTD"], says: ["time_in_force", "'GTD'", "GTC, IOC, FOK, PO"]),
        BadJob(.submitOrder, market.merging(["price": "5"]) { $1 }, says: ["price", "'5'", "market order"]),
        BadJob(.submitOrder, market.merging(["time_in_force": "FOK"]) { $1 }, says: ["time_in_force", "market order"]),
        BadJob(.cancelOrder, ["symbol": "BTC/USDT"], says: ["order_id", "missing"]),
        BadJob(.cancelOrder, ["order_id": "o-1"], says: ["symbol", "missing"]),
        BadJob(.cancelOrder, ["symbol": "BTC/USDT", "order_id": "a/b"], says: ["order_id", "'a/b'"]),
    ]
}

extension FakeHTTPServer {
    /// A Bybit that knows the time and one market, and answers everything else with `answer`.
    static func bybit(refusing answer: String, headers: [String: String] = [:]) -> FakeHTTPServer {
        FakeHTTPServer { request in
            if request.target.contains("market/time") {
                return .text(#"{"retCode":0,"result":{},"time":1700000000000}"#)
            }
            guard request.target.contains("instruments") else { return .text(answer, headers: headers) }
            let market =
                #"{"symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT","status":"Trading","#
                + #""priceFilter":{"tickSize":"0.1"},"lotSizeFilter":{"basePrecision":"0.001"}}"#
            return .text(#"{"retCode":0,"result":{"list":[\#(market)]},"time":1}"#)
        }
    }
}
