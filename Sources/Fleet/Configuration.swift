package import Exchanges
internal import Foundation
package import Logging
package import Redis

/// A worker's settings, from the environment, read once at start.
package struct Configuration: Sendable {
    package enum Mode: String, Sendable, CaseIterable { case simulated, testnet, live }
    package enum LogFormat: String, Sendable, CaseIterable { case text, json }
    package enum Switch: String, Sendable, CaseIterable { case on, off, yes, no }

    /// All faults found, one a line.
    package struct Invalid: Error, CustomStringConvertible { package let description: String }

    package let mode: Mode
    package let redis: RedisURL
    /// The exchanges served, each with its address and key.
    package let apis: [any ExchangeAPI]
    package let kinds: [Kind]
    /// Jobs in flight in a lane.
    package let concurrency: Int
    package let metricsPort: Int
    /// In seconds.
    package let tickerResultTTL, orderResultTTL, cacheTTL, drainTimeout: Int
    package let usesLimits, allowsOrders: Bool
    package let logLevel: Logger.Level
    package let logFormat: LogFormat

    /// - Throws: `Invalid`, listing every wrong or unknown variable with its value (never a secret's) and what was
    ///   expected.
    package init(_ environment: [String: String]) throws(Invalid) {
        var source = Source(environment: environment)
        mode = source.choice("FLEET_MODE", .simulated)
        redis = source.redisURL()
        kinds = source.list("FLEET_KINDS", Kind.self)
        concurrency = source.number("FLEET_CONCURRENCY", 256, 1...100_000)
        metricsPort = source.number("FLEET_METRICS_PORT", 9464, 0...65_535)
        tickerResultTTL = source.number("FLEET_RESULT_TTL", 60, 1...31_536_000)
        orderResultTTL = source.number("FLEET_ORDER_RESULT_TTL", 604_800, 1...31_536_000)
        cacheTTL = source.number("FLEET_CACHE_TTL", 30, 1...86_400)
        drainTimeout = source.number("FLEET_DRAIN_TIMEOUT", 25, 0...3600)
        logLevel = source.choice("LOG_LEVEL", .info)
        logFormat = source.choice("LOG_FORMAT", .text)
        usesLimits = source.choice("FLEET_LIMITS", Switch.on) == .on
        allowsOrders = source.choice("FLEET_LIVE_ORDERS", Switch.no) == .yes || mode != .live
        // Taken for the fleet-wide limiter and the bound on waiting jobs; a single worker needs neither.
        _ = source.number("FLEET_MAX_WAITING", 1_000_000, 1...1_000_000_000)
        _ = source.text("FLEET_EGRESS")
        if !usesLimits, mode != .simulated {
            source.fault("FLEET_LIMITS", "off", "off in FLEET_MODE=simulated only")
        }
        let served = source.list("FLEET_EXCHANGES", Exchange.self)
        let tier = source.choice("KRAKEN_TIER", Kraken.Tier.starter)
        let (binance, bybit, kraken) = (
            source.access(.binance, mode, served), source.access(.bybit, mode, served),
            source.access(.kraken, mode, served)
        )
        let all: [any ExchangeAPI] = [
            Binance(baseURL: binance.url, credentials: binance.key),
            Bybit(baseURL: bybit.url, credentials: bybit.key),
            Kraken(baseURL: kraken.url, credentials: kraken.key, tier: tier),
        ]
        apis = all.filter { served.contains($0.exchange) }
        source.refuseUnknown()
        guard source.faults.isEmpty else { throw Invalid(description: source.faults.joined(separator: "\n")) }
    }
}

private struct Source {
    let environment: [String: String]
    private(set) var faults: [String] = []
    private var known: Set<String> = []

    init(environment: [String: String]) { self.environment = environment }

    mutating func fault(_ name: String, _ value: String, _ expected: String) {
        faults.append("\(name)='\(value)': expected \(expected)")
    }

    /// An empty variable is an unset one, as compose files make them.
    mutating func text(_ name: String) -> String? {
        known.insert(name)
        return environment[name].flatMap { $0.isEmpty ? nil : $0 }
    }

    mutating func number(_ name: String, _ standard: Int, _ range: ClosedRange<Int>) -> Int {
        guard let text = text(name) else { return standard }
        if let number = Int(text), range.contains(number) { return number }
        fault(name, text, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        return standard
    }

    mutating func choice<Value: RawRepresentable & CaseIterable>(_ name: String, _ standard: Value) -> Value
    where Value.RawValue == String {
        guard let text = text(name) else { return standard }
        if let value = Value(rawValue: text) { return value }
        fault(name, text, "one of " + Value.allCases.map(\.rawValue).joined(separator: ", "))
        return standard
    }

    mutating func list<Value: RawRepresentable & CaseIterable>(_ name: String, _: Value.Type) -> [Value]
    where Value.RawValue == String {
        guard let text = text(name) else { return Array(Value.allCases) }
        let names = text.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
        for name in names where Value(rawValue: name) == nil {
            fault("FLEET_\(Value.self)s".uppercased(), name, Value.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return Value.allCases.filter { names.contains($0.rawValue) }
    }

    /// `X`, or the text of the file that `X_FILE` names.
    mutating func secret(_ name: String) -> String? {
        if let value = text(name) { return value }
        guard let path = text(name + "_FILE") else { return nil }
        if let text = try? String(contentsOfFile: path, encoding: .utf8) {
            return text.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        fault(name + "_FILE", path, "a file that can be read")
        return nil
    }

    mutating func redisURL() -> RedisURL {
        do throws(RedisError) { return try RedisURL(text("REDIS_URL") ?? "redis://127.0.0.1:6379") } catch {
            faults.append(error.message)
            return .local
        }
    }

    mutating func credentials(_ exchange: Exchange, _ mode: Configuration.Mode) -> Credentials? {
        let name = exchange.rawValue.uppercased()
        switch (secret(name + "_KEY"), secret(name + "_SECRET")) {
        case (let key?, let secret?): return Credentials(key: key, secret: secret)
        case (nil, nil):
            return mode == .simulated ? .simulated(exchange) : nil
        default:
            faults.append("\(name)_KEY and \(name)_SECRET: only one of them is set; expected both or neither")
            return nil
        }
    }

    mutating func access(
        _ exchange: Exchange, _ mode: Configuration.Mode, _ served: [Exchange]
    ) -> (url: String, key: Credentials?) {
        (baseURL(exchange, mode, served), credentials(exchange, mode))
    }

    mutating func baseURL(_ exchange: Exchange, _ mode: Configuration.Mode, _ served: [Exchange]) -> String {
        let name = exchange.rawValue.uppercased() + "_URL"
        let simulator = text("FLEET_SIMULATOR_URL") ?? "http://127.0.0.1:8900"
        let standard: String? =
            switch (mode, exchange) {
            case (.simulated, _): simulator + "/" + exchange.rawValue
            case (.testnet, .binance): "https://testnet.binance.vision"
            case (.testnet, .bybit): "https://api-testnet.bybit.com"
            case (.testnet, .kraken): nil
            case (.live, .binance): "https://api.binance.com"
            case (.live, .bybit): "https://api.bybit.com"
            case (.live, .kraken): "https://api.kraken.com"
            }
        let url = text(name) ?? standard
        if url == nil, served.contains(exchange) {
            faults.append("\(name): Kraken has no spot testnet; set it, or leave kraken out of FLEET_EXCHANGES")
        }
        guard let url else { return "" }
        if !["http", "https"].contains(URL(string: url)?.scheme) || URL(string: url)?.host == nil {
            fault(text(name) == nil ? "FLEET_SIMULATOR_URL" : name, url, "an http:// or https:// address")
        }
        return url.hasSuffix("/") ? String(url.dropLast()) : url
    }

    mutating func refuseUnknown() {
        for name in environment.keys.sorted() where name.hasPrefix("FLEET_") && !known.contains(name) {
            faults.append("\(name): there is no such setting; the names are \(known.sorted().joined(separator: ", "))")
        }
    }
}

extension Credentials {
    /// What simulator and workers share when no keys are given.
    package static func simulated(_ exchange: Exchange) -> Credentials {
        let secret = "sim-\(exchange.rawValue)-secret"
        return Credentials(
            key: "sim-\(exchange.rawValue)-key",
            secret: exchange == .kraken ? Data(secret.utf8).base64EncodedString() : secret)
    }
}
