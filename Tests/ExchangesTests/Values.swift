import Foundation
import TestSupport
import Testing

@testable import Exchanges

// Everything in this target that calls an initializer of the library, so that a changed one is changed here alone.

func api(
    _ exchange: Exchange, credentials: Credentials? = Credentials(key: "key", secret: "c2VjcmV0")
) -> any ExchangeAPI {
    switch exchange {
    case .binance: Binance(baseURL: "https://api.binance.com", credentials: credentials)
    case .bybit: Bybit(baseURL: "https://api.bybit.com", credentials: credentials)
    case .kraken: Kraken(baseURL: "https://api.kraken.com", credentials: credentials)
    }
}

func instrument(
    _ symbol: String = "BTC/USDT", id: String? = nil, tick: Decimal = 0.01, step: Decimal = 0.00001,
    minAmount: Decimal? = nil, maxAmount: Decimal? = nil, minNotional: Decimal? = nil, isTrading: Bool = true,
    maxMarketAmount: Decimal? = nil
) -> Instrument {
    Instrument(
        symbol: symbol, id: id ?? symbol.replacing("/", with: ""), tick: tick, step: step, minAmount: minAmount,
        maxAmount: maxAmount, minNotional: minNotional, isTrading: isTrading,
        maxMarketAmount: maxMarketAmount)
}

func order(
    _ type: OrderType = .limit, _ side: Side = .buy, amount: String = "0.01", price: String? = "50000",
    timeInForce: TimeInForce = .gtc
) -> OrderRequest {
    OrderRequest(
        symbol: "BTC/USDT", side: side, type: type, amount: amount, price: price, timeInForce: timeInForce)
}

func submit(_ order: OrderRequest = order(), _ instrument: Instrument = instrument(), id: String = "my-1") -> Call {
    .submit(order, reference(id, instrument))
}

func reference(_ id: String = "my-1", exchangeOrderId: String? = nil, _ instrument: Instrument) -> OrderReference {
    var reference = OrderReference(id, instrument)
    reference.exchangeOrderId = exchangeOrderId
    return reference
}

func response(
    _ body: String, status: Int = 200, headers: [String: String] = [:], receivedMs: Int64 = 1_700_000_000_000
) -> HTTPResponse {
    HTTPResponse(status: status, headers: headers, body: Array(body.utf8), receivedMs: receivedMs)
}

func stamp(timestampMs: Int64 = 1_700_000_000_000, nonce: UInt64 = 1) -> Stamp {
    Stamp(timestampMs: timestampMs, nonce: nonce)
}

func httpClient(totalTimeout: Duration = .seconds(20), maxBodyBytes: Int = 8 << 20) -> HTTPClient {
    HTTPClient(totalTimeout: totalTimeout, maxBodyBytes: maxBodyBytes) { 1_700_000_000_000 }
}

func get(_ url: String) -> HTTPRequest { HTTPRequest(.get, url) }
func post(_ url: String, _ body: String, headers: [(name: String, value: String)] = []) -> HTTPRequest {
    HTTPRequest(.post, url, headers: headers, body: body)
}

// MARK: - Fixtures

func fixture(_ name: String) throws -> JSONValue {
    let folder = try #require(Bundle.module.url(forResource: "Fixtures", withExtension: nil))
    return try JSONValue(contentsOf: folder.appending(path: name))
}

func fixtureText(_ name: String) throws -> String {
    let folder = try #require(Bundle.module.url(forResource: "Fixtures", withExtension: nil))
    return try String(contentsOf: folder.appending(path: name), encoding: .utf8)
}

/// The markets of an exchange's fixture, by unified symbol, as the adapter reads them.
func markets(_ exchange: Exchange) throws -> [String: Instrument] {
    let file =
        switch exchange {
        case .binance: "binance-exchangeInfo.json"
        case .bybit: "bybit-instruments-info-spot.json"
        case .kraken: "kraken-AssetPairs.json"
        }
    let answer = try api(exchange).answer(to: .instruments, response(fixtureText("markets/" + file)))
    guard case .instruments(let list) = answer else { throw NeverHappened("instruments in \(file)") }
    return Dictionary(uniqueKeysWithValues: list.map { ($0.symbol, $0) })
}
