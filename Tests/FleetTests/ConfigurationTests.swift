import Foundation
import TestSupport
import Testing

@testable import Exchanges
@testable import Fleet

@Suite("Configuration")
struct ConfigurationTests {
    @Test("nothing set is a simulated fleet of all exchanges and kinds")
    func defaults() throws {
        let configuration = try Configuration([:])
        #expect(configuration.mode == .simulated)
        #expect("\(configuration.redis)" == "redis://127.0.0.1:6379/0")
        #expect(configuration.apis.map(\.exchange) == Exchange.allCases)
        #expect(Set(configuration.kinds) == Set(Kind.allCases))
        #expect(configuration.metricsPort == 9464)
        #expect(configuration.drainTimeout == 25)
        #expect(configuration.usesLimits && configuration.allowsOrders)
        #expect(configuration.orderLag == 3)
        #expect(try Configuration(["FLEET_MODE": "live"]).orderLag == 600, "no simulator hides an order for minutes")
    }

    @Test(
        "a good setting is taken",
        arguments: [
            ["FLEET_EXCHANGES": "kraken"], ["FLEET_EXCHANGES": "kraken, binance"], ["FLEET_KINDS": "fetch_ticker"],
            ["FLEET_CONCURRENCY": "1"], ["FLEET_METRICS_PORT": "0"], ["FLEET_LIMITS": "off"], ["FLEET_LIMITS": ""],
            ["FLEET_MODE": "testnet", "FLEET_EXCHANGES": "binance,bybit"], ["FLEET_MODE": "live"],
            ["FLEET_MODE": "testnet", "KRAKEN_URL": "https://proxy.example"], ["KRAKEN_TIER": "pro"],
            ["BINANCE_KEY": "k", "BINANCE_SECRET": "s"], ["LOG_LEVEL": "debug", "LOG_FORMAT": "json"],
            ["FLEET_SIMULATOR_URL": "http://sim:8900/"], ["FLEET_EGRESS": "nat-1", "FLEET_MAX_WAITING": "10"],
            ["HOME": "/root", "UNRELATED": "x"], ["FLEET_RESULT_TTL": "1", "FLEET_ORDER_RESULT_TTL": "2"],
        ])
    func good(_ environment: [String: String]) { #expect(faults(environment) == nil) }

    @Test(
        "a bad setting is refused with its name, its value and what was expected",
        arguments: [
            (["FLEET_MODE": "prod"], ["FLEET_MODE", "'prod'", "simulated, testnet, live"]),
            (["FLEET_EXCHANGES": "binance,ftx"], ["FLEET_EXCHANGES", "ftx", "binance, bybit, kraken"]),
            (["FLEET_KINDS": "fetch"], ["FLEET_KINDS", "fetch", "fetch_ticker"]),
            (["FLEET_CONCURRENCY": "0"], ["FLEET_CONCURRENCY", "'0'", "from 1"]),
            (["FLEET_CONCURRENCY": "many"], ["FLEET_CONCURRENCY", "'many'", "whole number"]),
            (["FLEET_METRICS_PORT": "65536"], ["FLEET_METRICS_PORT", "65535"]),
            (["FLEET_RESULT_TTL": "-1"], ["FLEET_RESULT_TTL", "'-1'"]),
            (["FLEET_ORDER_RESULT_TTL": "1.5"], ["FLEET_ORDER_RESULT_TTL", "'1.5'"]),
            (["FLEET_DRAIN_TIMEOUT": "x"], ["FLEET_DRAIN_TIMEOUT"]),
            (["FLEET_MAX_WAITING": "0"], ["FLEET_MAX_WAITING"]),
            (["FLEET_ORDER_LAG": "2"], ["FLEET_ORDER_LAG", "3 to"]),
            (["KRAKEN_TIER": "gold"], ["KRAKEN_TIER", "'gold'", "starter, intermediate, pro"]),
            (["LOG_LEVEL": "loud"], ["LOG_LEVEL", "'loud'"]), (["LOG_FORMAT": "xml"], ["LOG_FORMAT", "text, json"]),
            (["REDIS_URL": "localhost"], ["REDIS_URL"]),
            (["FLEET_LIVE_ORDERS": "true"], ["FLEET_LIVE_ORDERS", "'true'"]),
            (["FLEET_SIMULATOR_URL": "sim:8900"], ["FLEET_SIMULATOR_URL", "http://"]),
            (["BINANCE_URL": "ftp://x"], ["BINANCE_URL", "'ftp://x'", "http://"]),
            (["FLEET_MODE": "testnet", "FLEET_LIMITS": "off"], ["FLEET_LIMITS", "off", "simulated"]),
            (["FLEET_MODE": "live", "FLEET_LIMITS": "off"], ["FLEET_LIMITS", "off", "simulated"]),
            (["FLEET_MODE": "testnet"], ["KRAKEN_URL"]), (["FLEET_CONCURENCY": "5"], ["FLEET_CONCURENCY"]),
            (["FLEET_": ""], ["FLEET_"]), (["BYBIT_KEY": "k"], ["BYBIT_KEY", "BYBIT_SECRET"]),
            (["KRAKEN_SECRET": "s"], ["KRAKEN_KEY", "KRAKEN_SECRET"]),
            (["BINANCE_KEY_FILE": "/nonexistent/key"], ["BINANCE_KEY_FILE", "/nonexistent/key"]),
        ])
    func bad(_ environment: [String: String], _ says: [String]) throws {
        let text = try #require(faults(environment))
        for part in says { #expect(text.contains(part), "\(text)") }
    }

    @Test("several faults are listed together, one a line")
    func together() throws {
        let text = try #require(
            faults([
                "FLEET_MODE": "x", "FLEET_CONCURRENCY": "y", "FLEET_TYPO": "1", "REDIS_URL": "http://h",
                "LOG_LEVEL": "z",
                "BYBIT_KEY": "only",
            ]))
        let lines = text.split(separator: "\n")
        for name in ["FLEET_MODE", "FLEET_CONCURRENCY", "FLEET_TYPO", "REDIS_URL", "LOG_LEVEL", "BYBIT_KEY"] {
            #expect(lines.filter { $0.hasPrefix(name) }.count == 1, "\(name) in:\n\(text)")
        }
        #expect(lines.count == 6)
    }

    @Test(
        "an address that is none is named once as it was given, and said to be missing only where there is none",
        arguments: [
            (["FLEET_SIMULATOR_URL": "x"], "FLEET_SIMULATOR_URL='x'", ""),
            (["FLEET_SIMULATOR_URL": "ftp://a@b"], "FLEET_SIMULATOR_URL='(hidden)'", ""),
            (["FLEET_MODE": "live", "BINANCE_URL": "ftp://x"], "BINANCE_URL='ftp://x'", ""),
            (["FLEET_MODE": "testnet"], "KRAKEN_URL=''", " (kraken has no address of its own in testnet mode)"),
        ])
    func addresses(_ environment: [String: String], _ given: String, _ more: String) {
        #expect(faults(environment) == given + ": expected an http:// or https:// address" + more)
    }

    @Test("orders in live mode need FLEET_LIVE_ORDERS=yes")
    func liveOrders() throws {
        #expect(try Configuration(["FLEET_MODE": "live"]).apis.allSatisfy { $0.credentials == nil })
        #expect(try !Configuration(["FLEET_MODE": "live"]).allowsOrders)
        #expect(try !Configuration(["FLEET_MODE": "live", "FLEET_LIVE_ORDERS": "no"]).allowsOrders)
        #expect(try Configuration(["FLEET_MODE": "live", "FLEET_LIVE_ORDERS": "yes"]).allowsOrders)
    }

    @Test("a secret may be in a file, without the line's end, and signs as if it were given")
    func secretFiles() throws {
        let directory = try TemporaryDirectory()
        let key = try directory.write("the-key\n", to: "key")
        let secret = try directory.write("the-secret\r\n", to: "secret")
        let files = try Configuration(["BINANCE_KEY_FILE": key, "BINANCE_SECRET_FILE": secret])
        let given = try Configuration(["BINANCE_KEY": "the-key", "BINANCE_SECRET": "the-secret"])
        let requests = try [files, given].map { configuration in
            let api = try #require(configuration.apis.first { $0.exchange == .binance })
            return try api.request(query(), Stamp(timestampMs: 1, nonce: 1))
        }
        #expect(requests[0].url == requests[1].url)
        #expect(requests[0].headers.first?.value == "the-key")
    }

    @Test("secrets are never in the message, whatever else is wrong")
    func secretsStayHidden() throws {
        let directory = try TemporaryDirectory()
        let file = try directory.write("hunter9", to: "secret")
        let text = try #require(
            faults([
                "REDIS_URL": "http://:hunter1@h", "BINANCE_KEY": "hunter2", "BYBIT_SECRET": "hunter3",
                "KRAKEN_SECRET_FILE": file, "FLEET_MODE": "x", "FLEET_BINANCE_SECRET": "hunter4",
            ]))
        #expect(!text.contains("hunter"), "\(text)")
    }
}
