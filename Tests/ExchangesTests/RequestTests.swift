import Foundation
import TestSupport
import Testing

@testable import Exchanges

@Suite("Requests")
struct RequestTests {
    @Test("a post-only order of Kraken has the flag post and a deadline ten seconds ahead")
    func krakenPostOnly() throws {
        let market = try #require(try markets(.kraken)["BTC/USD"])
        let request = try api(.kraken).request(
            submit(order(timeInForce: .po), market), stamp(timestampMs: 1_700_000_000_123, nonce: 7))
        let body = try #require(request.body)
        #expect(body.hasPrefix("nonce=7&"))
        #expect(body.contains("&oflags=post"))
        #expect(!body.contains("timeinforce"))
        #expect(body.contains("&deadline=2023-11-14T22%3A13%3A30Z"), "\(body)")
    }

    @Test("an order may be accepted for longer than its request lasts")
    func acceptance() {
        // The window of the request, and for Binance's ten seconds and Bybit's unstated ones more.
        for (exchange, window) in [(Exchange.binance, 15), (.bybit, 15), (.kraken, 12)] {
            #expect(api(exchange).acceptance >= .seconds(window), "\(exchange)")
        }
    }

    @Test("an order that was found is another where the exchange says so of its side, type, amount or price")
    func matches() {
        var found = Order(prevented: "my-1", "BTC/USDT")
        #expect(order().matches(found), "it says nothing")
        (found.side, found.type, found.amount, found.price) = (.buy, .limit, "0.010", "50000.0")
        #expect(order().matches(found))
        for other in [order(.limit, .sell), order(.market, price: nil), order(amount: "0.02"), order(price: "50001")] {
            #expect(!other.matches(found), "\(other)")
        }
    }

    @Test("a private call without a key is refused before anything is built", arguments: Exchange.allCases)
    func noKey(_ exchange: Exchange) throws {
        let api = api(exchange, credentials: nil)
        let error = try #require(throws: ExchangeError.self) {
            try api.request(submit(), stamp())
        }
        #expect(error.verdict == .auth)
        #expect(error.message.contains("\(exchange.rawValue.uppercased())_KEY"))
        #expect(!error.mayHaveExecuted)
        #expect(try api.request(.time, stamp()).method == .get)
    }

    @Test("a Kraken secret that is not base64 is refused and not shown")
    func badSecret() throws {
        let api = api(.kraken, credentials: Credentials(key: "k", secret: "hunter2!"))
        let error = try #require(throws: ExchangeError.self) {
            try api.request(submit(), stamp())
        }
        #expect(error.verdict == .auth)
        #expect(!error.description.contains("hunter2"))
    }

    @Test("credentials show neither key nor secret")
    func hidden() {
        let text = "\(Credentials(key: "hunter1", secret: "hunter2"))"
        #expect(!text.contains("hunter"))
    }

    @Test("many tickers go out as one request", arguments: Exchange.allCases)
    func oneRequest(_ exchange: Exchange) throws {
        let all = try markets(exchange).values.sorted { $0.id < $1.id }
        let url = try #require(URLComponents(string: api(exchange).request(.tickers(all), stamp()).url))
        let query = Dictionary(uniqueKeysWithValues: (url.queryItems ?? []).map { ($0.name, $0.value) })
        let ids = all.map(\.id)
        switch exchange {
        case .binance: #expect(query == ["symbols": "[" + ids.map { "\"\($0)\"" }.joined(separator: ",") + "]"])
        case .bybit: #expect(query == ["category": "spot"])
        case .kraken: #expect(query == ["pair": ids.joined(separator: ",")])
        }
    }

    @Test("an order that is not a market of letters and digits still makes one line of JSON or form")
    func nothingToInject() throws {
        let market = instrument("BTC/USDT", id: "BTC&USDT=1")
        for exchange in [Exchange.binance, .kraken] {
            let request = try api(exchange).request(submit(order(), market), stamp())
            let items = URLComponents(string: "?" + (request.body ?? ""))?.queryItems ?? []
            #expect(items.contains { $0.value == "BTC&USDT=1" })
        }
    }

    @Test(
        "a client order id keeps to the exchange's alphabet and length, and is the same each time",
        arguments: Exchange.allCases,
        [
            "a", "my-1", "aZ09-_aZ09-_aZ09-_aZ09-_aZ09-_aZ09-_", String(repeating: "x", count: 37),
            String(repeating: "Z", count: 64), "1700000000000-0", "6d1b345e-2821-40e2-ad83-4ecb18a06876",
        ])
    func clientOrderIds(_ exchange: Exchange, _ jobId: String) throws {
        let id = api(exchange).clientOrderId(jobId: jobId)
        #expect(id == api(exchange).clientOrderId(jobId: jobId))
        if exchange == .kraken {
            #expect(UUID(uuidString: id) != nil)
            #expect(id == id.lowercased())
        } else {
            #expect(id.wholeMatch(of: /[A-Za-z0-9_-]{1,36}/) != nil)
            if jobId.count <= 36 { #expect(id == jobId) }
        }
    }

    @Test("client order ids that are known stay what they were")
    func knownIds() {
        let long = String(repeating: "a", count: 64)
        // sha256("aaaa…") begins ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb.
        #expect(api(.binance).clientOrderId(jobId: long) == "xffe054fe7ae0cb6dc65c3af9b61d5209f43")
        #expect(api(.bybit).clientOrderId(jobId: long) == "xffe054fe7ae0cb6dc65c3af9b61d5209f43")
        #expect(api(.kraken).clientOrderId(jobId: long) == "ffe054fe-7ae0-8b6d-865c-3af9b61d5209")
    }

    @Test("different jobs have different client order ids", arguments: Exchange.allCases)
    func differentIds(_ exchange: Exchange) {
        let api = api(exchange)
        let ids = (0..<2000).flatMap { ["job-\($0)", String(repeating: "l", count: 50) + "\($0)"] }
        #expect(Set(ids.map(api.clientOrderId(jobId:))).count == ids.count)
    }
}
