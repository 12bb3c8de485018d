import Foundation
import TestSupport
import Testing

@testable import Exchanges

@Suite("Verdicts")
struct ErrorVectorTests {
    struct Entry: Sendable, CustomTestStringConvertible {
        let exchange: Exchange
        let json: JSONValue
        let body: String
        var status: Int { json["httpStatus"].int ?? 0 }
        var headers: [String: String] {
            Dictionary(
                uniqueKeysWithValues: json["headers"].members.map { ($0.key.lowercased(), $0.value.text ?? "") })
        }
        var testDescription: String { "\(exchange) \(status) \(body.prefix(60))" }

        static let all: [Entry] = Exchange.allCases.flatMap { exchange -> [Entry] in
            guard let text = try? fixtureText("errors-\(exchange).json"), let json = try? JSONValue(text),
                let raw = (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any],
                let entries = raw["entries"] as? [[String: Any]]
            else { return [] }
            return zip(json["entries"].list, entries).map { json, raw in
                let data = json["body"].isNull ? nil : try? JSONSerialization.data(withJSONObject: raw["body"] ?? [:])
                let body = data.map { String(decoding: $0, as: UTF8.self) } ?? json["bodyText"].text ?? ""
                return Entry(exchange: exchange, json: json, body: body)
            }
        }
    }

    @Test("the answer to an order means what it means to others", arguments: Entry.all)
    func verdict(_ entry: Entry) throws {
        let api = api(entry.exchange)
        let answer = response(entry.body, status: entry.status, headers: entry.headers)
        let call = submit()
        // Binance says this to a query only, where it is an answer: there is no such order.
        if entry.body.contains("-2013") {
            guard case .absent = try api.answer(to: .query(reference("my-1", instrument())), answer) else {
                Issue.record("absent was expected")
                return
            }
            return
        }
        let error = try #require(throws: ExchangeError.self) { try api.answer(to: call, answer) }
        #expect(error.verdict.rawValue == entry.json["verdict"].text)
        // Overloaded, another status than Kraken's 200, and an elapsed deadline leave open what became of an order.
        let isOpen =
            entry.status >= 500 || (entry.exchange == .kraken && entry.status != 200)
            || entry.body.contains("Deadline elapsed")
        let canExist = [Verdict.unknown, .dup].contains(error.verdict) || isOpen
        #expect(error.mayHaveExecuted == canExist)
        if let seconds = entry.headers["retry-after"].flatMap(Int.init) {
            #expect(error.retryAfter == .seconds(seconds))
        }
    }

    @Test(
        "a status of something on the way proves nothing of an order, and refuses nothing for good",
        arguments: Exchange.allCases, [400, 408, 413, 499])
    func statusOfAnother(_ exchange: Exchange, _ status: Int) throws {
        let cancel = Call.cancel(reference("my-1", instrument()))
        for call in [submit(), cancel, .tickers([instrument()]), .instruments] {
            let answer = response("<html>", status: status)
            let error = try #require(throws: ExchangeError.self) { try api(exchange).answer(to: call, answer) }
            #expect(error.verdict == .unknown && error.mayHaveExecuted, "\(call)")
        }
    }

    @Test("a refusal without Binance's code leaves open what became of an order", arguments: [401, 418, 429])
    func withoutCode(_ status: Int) throws {
        let answers = ["<html>", #"{"code":-1003,"msg":"later"}"#].map { response($0, status: status) }
        let errors = answers.map { answer in
            #expect(throws: ExchangeError.self) { try api(.binance).answer(to: submit(), answer) }
        }
        #expect(errors.map { $0?.mayHaveExecuted } == [true, false])
        #expect(errors.map { $0?.isOutage } == [false, false], "it is no outage either")
    }

    @Test(
        "a refusal by a server that is broken or overloaded leaves open what became of an order",
        arguments: [(503, -1003), (429, -1008)])
    func openRefusal(_ status: Int, _ code: Int) throws {
        let answer = response(#"{"code":\#(code),"msg":"later"}"#, status: status)
        let error = try #require(throws: ExchangeError.self) { try api(.binance).answer(to: submit(), answer) }
        #expect(error.verdict == .wait && error.mayHaveExecuted)
    }

    @Test("a refusal for limits says for how long, whatever its words", arguments: Exchange.allCases, [403, 418, 429])
    func silence(_ exchange: Exchange, _ status: Int) throws {
        let error = try #require(throws: ExchangeError.self) {
            try api(exchange).answer(to: .tickers([instrument()]), response("", status: status))
        }
        #expect(error.verdict == .wait && error.retryAfter ?? .zero >= .seconds(10))
    }

    @Test("Kraken's other words for it", arguments: ["EGeneral:Too many requests", "EAuth:Too many requests"])
    func words(_ text: String) throws {
        let answer = response(#"{"error":["\#(text)"]}"#)
        let error = try #require(throws: ExchangeError.self) { try api(.kraken).answer(to: submit(), answer) }
        #expect(error.verdict == .wait && error.retryAfter == .seconds(5))
    }

    @Test("a space behind Kraken's colon changes nothing, and what no document lists proves nothing of an order")
    func krakenWords() throws {
        let expected: [(String, Verdict)] = [
            ("EGeneral: Internal error", .unknown), ("EAPI: Invalid nonce", .resync),
            ("EGeneral:Invalid arguments: cl_ord_id not unique", .dup), ("EOrder: Rate limit exceeded", .wait),
            ("EOrder: Insufficient funds", .permanent), ("EGeneral:Unknown error", .unknown), ("EFoo:Bar", .unknown),
            ("EAccount:Invalid permissions", .auth),
            ("EAccount:Invalid permissions:ABC trading restricted for NL.", .permanent),
            ("EBM:limit exceeded:CAL", .permanent), ("ETrade:Invalid request", .permanent),
        ]
        for (text, verdict) in expected {
            let answer = response(#"{"error":["\#(text)"]}"#)
            let error = try #require(throws: ExchangeError.self) { try api(.kraken).answer(to: submit(), answer) }
            #expect(error.verdict == verdict, "\(text)")
        }
        let other = response(#"{"retCode":99999,"retMsg":"of orders nobody says"}"#)
        let error = try #require(throws: ExchangeError.self) { try api(.bybit).answer(to: submit(), other) }
        #expect(error.verdict == .unknown, "nor with Bybit")
    }

    @Test(
        "what says that an order is gone, or going, is no refusal of its cancel",
        arguments: [170213, 110001, 170139, 170142, 170143, 170190, 170212, 110008, 110010].map {
            (Exchange.bybit, #"{"retCode":\#($0)}"#)
        } + ["EOrder: Unknown order", "EOrder:Invalid order"].map { (.kraken, #"{"error":["\#($0)"]}"#) })
    func gone(_ exchange: Exchange, _ body: String) throws {
        let cancel = Call.cancel(reference("my-1", instrument()))
        guard case .absent = try api(exchange).answer(to: cancel, response(body)) else {
            Issue.record("absent was expected")
            return
        }
    }

    @Test("an order that Bybit says is not there, to a question too, is absent, and one that is locked may exist")
    func bybitCodes() throws {
        for call in [Call.query(reference("my-1", instrument())), .history(reference("my-1", instrument()))] {
            guard case .absent = try api(.bybit).answer(to: call, response(#"{"retCode":170213}"#)) else {
                Issue.record("absent was expected")
                continue
            }
        }
        let expected: [(Int, Call, Verdict)] = [
            (170035, submit(), .unknown), (110079, submit(), .unknown), (110030, submit(), .dup),
            (170191, .cancel(reference("my-1", instrument())), .unknown),
            (170150, .cancel(reference("my-1", instrument())), .unknown),
        ]
        for (code, call, verdict) in expected {
            let answer = response(#"{"retCode":\#(code)}"#)
            let error = try #require(throws: ExchangeError.self) { try api(.bybit).answer(to: call, answer) }
            #expect(error.verdict == verdict, "\(code)")
        }
    }

    @Test("Binance says duplicate under two codes", arguments: [-1010, -2010])
    func binanceDuplicate(_ code: Int) throws {
        let answer = response(#"{"code":\#(code),"msg":"Duplicate order sent."}"#, status: 400)
        let error = try #require(throws: ExchangeError.self) { try api(.binance).answer(to: submit(), answer) }
        #expect(error.verdict == .dup)
    }

    @Test(
        "an answer that says there is no such market is told from other refusals",
        arguments: [
            (Exchange.binance, 400, #"{"code":-1121,"msg":"Invalid symbol."}"#),
            (.bybit, 200, #"{"retCode":10001,"retMsg":"Not supported symbols"}"#),
            (.bybit, 200, #"{"retCode":170121,"retMsg":"Invalid symbol."}"#),
            (.kraken, 200, #"{"error":["EQuery:Unknown asset pair"]}"#),
        ])
    func noMarket(_ exchange: Exchange, _ status: Int, _ body: String) throws {
        let refusals = [response(body, status: status), response("{}", status: 404)].map { answer in
            #expect(throws: ExchangeError.self) { try api(exchange).answer(to: .tickers([instrument()]), answer) }
        }
        #expect(refusals[0]?.code == "unknown_symbol" && refusals[0]?.verdict == .permanent)
        #expect(refusals[1]?.code != "unknown_symbol")
    }

    @Test(
        "a market list in which nothing can be understood is no answer",
        arguments: [
            (Exchange.binance, #"{"symbols":[1,2]}"#), (.bybit, #"{"retCode":0,"result":{"list":[{"symbol":5}]}}"#),
            (.kraken, #"{"error":[],"result":{"X":7}}"#),
        ])
    func noMarkets(_ exchange: Exchange, _ body: String) throws {
        let error = try #require(throws: ExchangeError.self) {
            try api(exchange).answer(to: .instruments, response(body))
        }
        #expect(error.code == "malformed_answer")
    }

    @Test("the tables are whole")
    func count() { #expect(Entry.all.count == 84) }

    @Test(
        "a cancel of an order that is gone is an answer, not an error",
        arguments: [
            (Exchange.binance, 400, #"{"code":-2011,"msg":"Unknown order sent."}"#),
            (.bybit, 200, #"{"retCode":170213,"retMsg":"Order does not exist."}"#),
            (.bybit, 200, #"{"retCode":110001,"retMsg":""}"#), (.bybit, 200, #"{"retCode":170139,"retMsg":""}"#),
            (.bybit, 200, #"{"retCode":170142,"retMsg":""}"#),
            (.kraken, 200, #"{"error":["EOrder:Unknown order"]}"#),
            (.kraken, 200, #"{"error":[],"result":{"count":0}}"#),
        ])
    func gone(_ exchange: Exchange, _ status: Int, _ body: String) throws {
        let answer = try api(exchange).answer(
            to: .cancel(reference("my-1", instrument())), response(body, status: status))
        guard case .absent = answer else {
            Issue.record("absent was expected")
            return
        }
    }

    @Test(
        "waits are as long as the exchange says",
        arguments: [
            (Exchange.binance, 418, ["retry-after": "120"], #"{"code":-1003,"msg":"banned"}"#, 120_000),
            (.binance, 403, ["retry-after": "5"], "<html>WAF</html>", 5000),
            (
                .bybit, 200, ["x-bapi-limit-reset-timestamp": "1700000001500"],
                #"{"retCode":10006,"retMsg":"Too many visits!","time":1700000000000}"#, 1500
            ),
            (
                .bybit, 200, ["x-bapi-limit-reset-timestamp": "1700000900000"],
                #"{"retCode":10006,"retMsg":"","time":1700000000000}"#, 60_000
            ),
            (.kraken, 200, [:], #"{"error":["EService: Throttled: 1700000005"]}"#, 5000),
            (.kraken, 200, [:], #"{"error":["EService:Throttled: 1700009999"]}"#, 60_000),
            (.kraken, 200, [:], #"{"error":["EService:Throttled: 1699999999"]}"#, 1000),
        ])
    func waits(
        _ exchange: Exchange, _ status: Int, _ headers: [String: String], _ body: String, _ milliseconds: Int
    ) throws {
        let error = try #require(throws: ExchangeError.self) {
            try api(exchange).answer(
                to: submit(), response(body, status: status, headers: headers))
        }
        #expect(error.verdict == .wait)
        #expect(error.retryAfter == .milliseconds(milliseconds))
    }

    @Test(
        "an answer that is not the documented one is never a success, and an order may exist after it",
        arguments: Exchange.allCases,
        [
            "", "<html>502 Bad Gateway</html>", "null", "[]", "{}", "42", "\"text\"", "{\"retCode\":0}",
            "{\"retCode\":0,\"result\":{}}", "{\"error\":[]}", "{\"error\":[],\"result\":null}", "{\"error\":{}}",
            "{\"error\":[],\"result\":{\"txid\":[]}}", "{\"orderId\":1}", "{\"retCode\":\"OK\"}", "{\"x\":",
            "{\"error\":[5],\"result\":[]}", "\u{0}\u{1}",
        ])
    func malformed(_ exchange: Exchange, _ body: String) throws {
        for call in [submit(), .tickers([instrument()]), .time, .instruments] {
            do {
                switch try api(exchange).answer(to: call, response(body)) {
                case .tickers(let list): #expect(list.isEmpty)
                case .instruments(let list): #expect(list.isEmpty)
                default: Issue.record("\(call) took '\(body)' for an answer")
                }
            } catch {
                #expect(error.verdict == .unknown, "\(call) '\(body)'")
                #expect(error.mayHaveExecuted)
                #expect(error.message.count < 300)
            }
        }
    }

    @Test("figures of another type read as absent, and the rest is kept")
    func otherTypes() throws {
        let body =
            #"{"symbol":"BTCUSDT","lastPrice":"1.5","bidPrice":5,"askPrice":null,"volume":"1e5","highPrice":["2"]}"#
        guard case .tickers(let list) = try api(.binance).answer(to: .tickers([instrument()]), response(body)) else {
            return
        }
        let ticker = try #require(list.first)
        #expect(ticker.last == "1.5")
        #expect(ticker.ask == nil && ticker.baseVolume == nil && ticker.high == nil && ticker.bid == nil)
    }
}
