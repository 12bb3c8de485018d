import Foundation
import TestSupport
import Testing

@testable import Exchanges

@Suite("Answers with absurd numbers")
struct HostileAnswerTests {
    /// What a broken or malicious server may say in place of a time.
    static let times = [
        "9223372036854775807", "-9223372036854775808", "9223372036854775", "1e300", "\"nan\"", "\"inf\"", "0",
    ]

    @Test("a time that cannot be one is a malformed answer", arguments: Exchange.allCases, Self.times)
    func time(_ exchange: Exchange, _ time: String) {
        let bodies: [Exchange: String] = [
            .binance: #"{"serverTime":\#(time)}"#, .bybit: #"{"retCode":0,"result":{},"time":\#(time)}"#,
            .kraken: #"{"error":[],"result":{"unixtime":\#(time)}}"#,
        ]
        #expect(throws: ExchangeError.self) {
            try api(exchange).answer(to: .time, response(bodies[exchange] ?? ""))
        }
    }

    @Test(
        "a Retry-After that is no number of seconds stands for ten, and one beyond the longest ban for that",
        arguments: ["inf": 10, "nan": 10, "-1": 10, "x": 10, "259201": 259_200, "1e19": 259_200, "1e30": 259_200])
    func retryAfter(_ text: String, _ seconds: Int) throws {
        for exchange in Exchange.allCases {
            let answer = response("{}", status: 429, headers: ["retry-after": text])
            let error = try #require(throws: ExchangeError.self) { try api(exchange).answer(to: .time, answer) }
            #expect(error.verdict == .wait)
            #expect(error.retryAfter == .seconds(seconds))
        }
    }

    @Test(
        "Bybit's limits are read as parts of the documented ones, and what cannot be one is left out",
        arguments: [
            ("20", "1", 19), ("10", "1", 18), ("200", "0", 20), ("20", "10", nil), ("20", "21", nil), ("20", "-1", nil),
            ("0", "0", nil), ("-1", "0", nil), ("nan", "0", nil), ("20", "nan", nil), ("20", "", nil),
        ])
    func limits(_ limit: String, _ left: String, _ used: Double?) {
        let answer = response("{}", headers: ["x-bapi-limit": limit, "x-bapi-limit-status": left])
        let (bybit, order) = (api(.bybit), reference("my-1", instrument()))
        let calls = [submit(), .cancel(order), .query(order), .history(order), .time]
        let usages = calls.map { bybit.usage(in: answer, of: $0).first }
        #expect(usages.map { $0?.used } == [used, used, used.map { $0 * 2.5 }, used.map { $0 * 2.5 }, nil])
        if used != nil { #expect(usages.map { $0?.name } == ["create", "cancel", "realtime", "history", nil]) }
    }

    @Test("Binance's headers say what was used of its budgets")
    func used() {
        let headers = ["used-weight-1m": "7", "order-count-10s": "8", "order-count-1d": "9"]
        let answer = response("{}", headers: Dictionary(headers.map { ("x-mbx-" + $0, $1) }) { $1 })
        let usages = api(.binance).usage(in: answer, of: submit())
        #expect(usages.map(\.name) == api(.binance).charges(for: submit()).map(\.name))
        #expect(usages.map(\.used) == [7, 8, 9] && usages.map(\.windowMs) == [60_000, 10_000, 86_400_000])
    }

    @Test("times inside an order or a refusal that cannot be one are left out", arguments: Self.times)
    func timesInside(_ time: String) throws {
        let order = #"{"error":[],"result":{"OABC":{"status":"open","vol":"1","vol_exec":"0","opentm":\#(time)}}}"#
        let known = reference("a", exchangeOrderId: "OABC", instrument())
        guard case .order(let found) = try api(.kraken).answer(to: .query(known), response(order)) else {
            Issue.record("an order was expected")
            return
        }
        #expect(found.exchangeMs == nil && found.createdMs == nil)
        let throttled = response(#"{"error":["EService: Throttled: \#(time)"]}"#)
        #expect(throws: ExchangeError.self) { try api(.kraken).answer(to: .time, throttled) }
        let reset = response(
            #"{"retCode":10006,"retMsg":"","time":\#(time)}"#, headers: ["x-bapi-limit-reset-timestamp": time])
        #expect(throws: ExchangeError.self) { try api(.bybit).answer(to: .time, reset) }
    }

    @Test("a key and a secret that the exchange repeats are hidden, in its code too")
    func repeatedSecrets() {
        let error = ExchangeError(.auth, code: "key_refused", "key-1 with secret-1", exchangeCode: "E:key-1:secret-1")
            .hiding(Credentials(key: "key-1", secret: "secret-1"))
        #expect(error.message == "*** with ***" && error.exchangeCode == "E:***:***")
    }

    @Test("the exchange's words are cut")
    func longWords() throws {
        let words = String(repeating: "x", count: 100_000)
        let answer = response(#"{"code":-1121,"msg":"\#(words)"}"#, status: 400)
        let error = try #require(throws: ExchangeError.self) { try api(.binance).answer(to: .time, answer) }
        #expect(error.message.count == 500)
    }
}
