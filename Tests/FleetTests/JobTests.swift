import Exchanges
import Redis
import TestSupport
import Testing

@testable import Fleet

@Suite("Jobs")
struct JobTests {
    @Test("a bad job is refused with a sentence that names field, value and what was expected", arguments: BadJob.all)
    func bad(_ bad: BadJob) throws {
        guard case .malformed(let sentence) = job(bad.kind, bad.fields).work else {
            Issue.record("taken for a good job")
            return
        }
        for part in bad.says { #expect(sentence.contains(part), "\(sentence)") }
        #expect(sentence.count < 300, "a sentence, not the value")
    }

    @Test("fields that are no pairs of text are no reason to fall over")
    func oddEntries() {
        for fields in [[], [RedisValue.null], [.bytes([1])], [.integer(1), .array([])], [.bytes([]), .bytes([])]] {
            let read = Job(exchange: .kraken, kind: .fetchTicker, entryId: "", fields: fields)
            guard case .malformed(let sentence) = read.work else {
                Issue.record("taken for a good job")
                continue
            }
            #expect(sentence.contains("symbol"))
        }
    }

    @Test("a job with more fields than a function of Redis can put back is refused", arguments: [1009, 1010])
    func manyFields(_ extra: Int) {
        let fields = [("symbol", Array("BTC/USDT".utf8))] + (0..<extra).map { ("x\($0)", [UInt8]()) }
        guard case .malformed(let sentence) = job(.fetchTicker, fields).work else {
            #expect(extra == 1009)
            return
        }
        #expect(extra == 1010 && sentence == "fields: 1011; expected at most 1000")
    }

    @Test("unknown fields are kept and ignored")
    func unknownFields() {
        let read = job(.fetchTicker, ["symbol": "BTC/USDT", "Symbol": "x", "comment": "…", "price": "-1"])
        guard case .fetchTicker("BTC/USDT", 1000) = read.work else {
            Issue.record("\(read.work)")
            return
        }
    }

    @Test("an empty value is an absent one")
    func emptyValues() {
        let read = job(
            .fetchTicker, ["symbol": "BTC/USDT", "id": "", "deadline_ms": "", "reply_to": "", "max_age_ms": ""])
        guard case .fetchTicker("BTC/USDT", 1000) = read.work else {
            Issue.record("\(read.work)")
            return
        }
        #expect(read.id == "1700000000000-0")
    }

    @Test("the common fields are read, and have the contract's defaults")
    func commonFields() {
        let plain = job(.fetchTicker, ["symbol": "BTC/USDT"])
        #expect(plain.id == "1700000000000-0")
        #expect(plain.enqueuedMs == 1_700_000_000_000)
        #expect(plain.maxAttempts == 5)
        #expect(plain.deadlineMs == nil && plain.replyTo == nil && plain.resultTTL == nil && plain.traceparent == nil)
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        let full = job(
            .fetchTicker,
            [
                "symbol": "BTC/USDT", "id": "aZ09-_", "max_age_ms": "0", "deadline_ms": "1700000001000",
                "max_attempts": "100", "reply_to": "fleet:{binance}:reply:x", "result_ttl_s": "0", "traceparent": trace,
            ])
        guard case .fetchTicker("BTC/USDT", 0) = full.work else {
            Issue.record("\(full.work)")
            return
        }
        #expect(full.id == "aZ09-_")
        #expect(full.deadlineMs == 1_700_000_001_000)
        #expect(full.maxAttempts == 100)
        #expect(full.replyTo == "fleet:{binance}:reply:x")
        #expect(full.resultTTL == 0)
        #expect(full.traceparent == trace)
    }

    @Test(
        "orders are read with every type and time in force",
        arguments: [
            (["type": "limit", "price": "50000.10"], "GTC"),
            (["type": "limit", "price": "1", "time_in_force": "IOC"], "IOC"),
            (["type": "limit", "price": "1", "time_in_force": "FOK"], "FOK"),
            (["type": "limit", "price": "1", "time_in_force": "PO"], "PO"), (["type": "market"], "GTC"),
        ])
    func orders(_ fields: [String: String], _ timeInForce: String) throws {
        let common = ["id": "o", "symbol": "BTC/USDT", "side": "sell", "amount": "0.0100"]
        guard case .submitOrder(let order) = job(.submitOrder, common.merging(fields) { $1 }).work else {
            Issue.record("not read")
            return
        }
        #expect(order.symbol == "BTC/USDT" && order.side == .sell)
        #expect(order.amount == "0.0100", "as it was written")
        #expect(order.price == fields["price"])
        #expect(order.type.rawValue == fields["type"])
        #expect(order.timeInForce.rawValue == timeInForce)
    }

    @Test("cancels and refreshes are read")
    func others() {
        guard case .cancelOrder("o-1", "ETH/BTC") = job(.cancelOrder, ["order_id": "o-1", "symbol": "ETH/BTC"]).work
        else {
            Issue.record("no cancel")
            return
        }
        let lists = ["A/B,C/D": ["A/B", "C/D"], "": [], "１２３/４５６": ["１２３/４５６"]]
        for (text, symbols) in lists {
            guard case .refreshCache(let read) = job(.refreshCache, ["symbols": text]).work else {
                Issue.record("no refresh")
                continue
            }
            #expect(read == symbols)
        }
        guard case .refreshCache([]) = job(.refreshCache, [:]).work else {
            Issue.record("no refresh of everything")
            return
        }
    }
}
