package import Exchanges
package import Foundation
package import Logging
package import Redis

/// The settings of worker and producer, from the environment, read once at start. Times are in seconds.
package struct Configuration: Sendable {
    package enum Mode: String, Sendable, CaseIterable { case simulated, testnet, live }
    package enum LogFormat: String, Sendable, CaseIterable { case text, json }
    private enum OnOff: String, CaseIterable { case on, off }
    private enum YesNo: String, CaseIterable { case yes, no }

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
    package let tickerResultTTL, orderResultTTL, cacheTTL, drainTimeout: Int
    /// The most entries of a stream to which the producer adds a job.
    package let maxWaiting: Int
    package let usesLimits, allowsOrders, allowsVolatileOrders: Bool
    /// The most an order may be worth, by quote currency; when there are any, other currencies are refused.
    package let maxOrderNotional: [String: Decimal]
    /// How long an exchange may not show an order that it has accepted.
    package let orderLag: Int
    /// The address group: workers with the same name share the exchanges' limits by address.
    package let egress: String
    package let logLevel: Logger.Level
    package let logFormat: LogFormat

    /// - Throws: `Invalid`, listing every wrong or unknown variable with its value (never a secret's) and what was
    ///   expected.
    package init(_ environment: [String: String]) throws(Invalid) {
        var source = Source(environment: environment)
        mode = source.choice("FLEET_MODE", .simulated)
        kinds = source.list("FLEET_KINDS")
        concurrency = source.number("FLEET_CONCURRENCY", 256, 1...100_000)
        metricsPort = source.number("FLEET_METRICS_PORT", 9464, 0...65_535)
        tickerResultTTL = source.number("FLEET_RESULT_TTL", 60, 1...31_536_000)
        orderResultTTL = source.number("FLEET_ORDER_RESULT_TTL", 604_800, 1...31_536_000)
        cacheTTL = source.number("FLEET_CACHE_TTL", 30, 1...86_400)
        drainTimeout = source.number("FLEET_DRAIN_TIMEOUT", 25, 0...3600)
        logLevel = source.choice("LOG_LEVEL", .info)
        logFormat = source.choice("LOG_FORMAT", .text)
        usesLimits = source.choice("FLEET_LIMITS", OnOff.on) == .on
        allowsOrders = source.choice("FLEET_LIVE_ORDERS", YesNo.no) == .yes || mode != .live
        allowsVolatileOrders = source.choice("FLEET_VOLATILE_ORDERS", YesNo.no) == .yes
        maxOrderNotional = source.read(
            "FLEET_MAX_ORDER_NOTIONAL", [:],
            "a currency and a decimal above 0, comma separated, e.g. USDT=5000,BTC=0.1", amounts)
        // Binance has been seen to hide filled orders for minutes (its own users' reports, 2020 and 2021).
        orderLag = source.number("FLEET_ORDER_LAG", mode == .simulated ? 3 : 600, 3...86_400)
        maxWaiting = source.number("FLEET_MAX_WAITING", 1_000_000, 1...1_000_000_000)
        egress = source.read("FLEET_EGRESS", "default", "1 to 64 of A-Z a-z 0-9 _ -") { isJobId($0) ? $0 : nil }
        if !usesLimits, mode != .simulated { source.fault("FLEET_LIMITS", "off", "on unless FLEET_MODE=simulated") }
        let served: [Exchange] = source.list("FLEET_EXCHANGES")
        let tier = source.choice("KRAKEN_TIER", Kraken.Tier.starter)
        let binance = source.access(.binance, mode, "https://api.binance.com", "https://testnet.binance.vision", served)
        let bybit = source.access(.bybit, mode, "https://api.bybit.com", "https://api-testnet.bybit.com", served)
        let kraken = source.access(.kraken, mode, "https://api.kraken.com", nil, served)
        let all: [any ExchangeAPI] = [
            Binance(baseURL: binance.url, credentials: binance.key), Bybit(baseURL: bybit.url, credentials: bybit.key),
            Kraken(baseURL: kraken.url, credentials: kraken.key, tier: tier),
        ]
        apis = all.filter { served.contains($0.exchange) }
        let redis = source.redisURL()
        source.refuseUnknown()
        guard let redis, source.faults.isEmpty else {
            throw Invalid(description: source.faults.joined(separator: "\n"))
        }
        self.redis = redis
    }
}

/// Amounts by currency, from `NAME=decimal`, comma separated.
private func amounts(_ text: String) -> [String: Decimal]? {
    var amounts: [String: Decimal] = [:]
    for part in text.split(separator: ",") {
        let pair = part.split(separator: "=").map { $0.trimmingCharacters(in: .whitespaces) }
        guard pair.count == 2, !pair[0].isEmpty, let amount = Decimal(wire: pair[1]), amount > 0,
            amounts.updateValue(amount, forKey: pair[0].uppercased()) == nil
        else { return nil }
    }
    return amounts.isEmpty ? nil : amounts
}

/// The environment, which of its names were asked for, and what was wrong with them.
private struct Source {
    let environment: [String: String]
    var faults: [String] = []
    var known: Set<String> = []

    mutating func fault(_ name: String, _ value: String, _ expected: String) {
        let line = "\(name)='\(value)': expected \(expected)"
        // Every exchange looks at the simulator's address.
        if !faults.contains(line) { faults.append(line) }
    }

    /// An empty variable is an unset one, as compose files make them.
    mutating func text(_ name: String) -> String? {
        known.insert(name)
        return environment[name].flatMap { $0.isEmpty ? nil : $0 }
    }

    mutating func read<Value>(
        _ name: String, _ standard: Value, _ expected: String, _ parse: (String) -> Value?
    ) -> Value {
        guard let text = text(name) else { return standard }
        if let value = parse(text) { return value }
        fault(name, text, expected)
        return standard
    }

    mutating func number(_ name: String, _ standard: Int, _ range: ClosedRange<Int>) -> Int {
        read(name, standard, "a whole number from \(range.lowerBound) to \(range.upperBound)") { text in
            Int(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    mutating func choice<Value: RawRepresentable & CaseIterable>(_ name: String, _ standard: Value) -> Value
    where Value.RawValue == String {
        read(name, standard, "one of " + Value.allCases.map(\.rawValue).joined(separator: ", "), Value.init)
    }

    mutating func list<Value: RawRepresentable & CaseIterable>(_ name: String) -> [Value]
    where Value.RawValue == String {
        let all = Array(Value.allCases)
        let expected = "a comma separated list of " + all.map(\.rawValue).joined(separator: ", ")
        return read(name, all, expected) { text in
            let names = text.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
            guard !names.isEmpty, names.allSatisfy({ Value(rawValue: $0) != nil }) else { return nil }
            return all.filter { names.contains($0.rawValue) }
        }
    }

    /// `X`, or the text of the file that `X_FILE` names.
    mutating func secret(_ name: String) -> String? {
        text(name)
            ?? read(name + "_FILE", nil, "a file that can be read and is not empty") { path in
                let text = try? String(contentsOfFile: path, encoding: .utf8)
                return text.map { $0.trimmingCharacters(in: .whitespacesAndNewlines) }.flatMap { $0.isEmpty ? nil : $0 }
            }
    }

    mutating func redisURL() -> RedisURL? {
        do throws(RedisError) {
            let url = try RedisURL(text("REDIS_URL") ?? "redis://127.0.0.1:6379")
            if let file = url.caFile, !FileManager.default.isReadableFile(atPath: file) {
                fault("REDIS_URL: ca_file", file, "a file that can be read")
            }
            return url
        } catch {
            faults.append(error.message)
            return nil
        }
    }

    /// The address and key of an exchange in this mode.
    mutating func access(
        _ exchange: Exchange, _ mode: Configuration.Mode, _ live: String, _ testnet: String?, _ served: [Exchange]
    ) -> (url: String, key: Credentials?) {
        let name = exchange.rawValue.uppercased()
        let (own, simulator) = (text(name + "_URL"), text("FLEET_SIMULATOR_URL") ?? "http://127.0.0.1:8900")
        let isSimulator = own == nil && mode == .simulated
        let base = own ?? [.simulated: simulator, .testnet: testnet, .live: live][mode].flatMap { $0 }
        let parts = base.flatMap(URL.init(string:))
        if served.contains(exchange), parts?.host == nil || !["http", "https"].contains(parts?.scheme) {
            let none = base == nil ? " (\(exchange.rawValue) has no address of its own in \(mode) mode)" : ""
            let shown = base.map { $0.contains("@") ? "(hidden)" : $0 } ?? ""
            fault(isSimulator ? "FLEET_SIMULATOR_URL" : name + "_URL", shown, "an http:// or https:// address" + none)
        }
        let (key, secret) = (secret(name + "_KEY"), secret(name + "_SECRET"))
        if (key == nil) != (secret == nil) { faults.append("\(name)_KEY and \(name)_SECRET: expected both or neither") }
        if exchange == .kraken, let secret, Data(base64Encoded: secret) == nil {
            faults.append("KRAKEN_SECRET: expected base64, as Kraken shows it")
        }
        let given = key.flatMap { key in secret.map { Credentials(key: key, secret: $0) } }
        let url = (base ?? "").replacing(/\/$/, with: "") + (isSimulator ? "/" + exchange.rawValue : "")
        return (url, given ?? (mode == .simulated ? .simulated(exchange) : nil))
    }

    mutating func refuseUnknown() {
        for name in environment.keys.sorted() where name.hasPrefix("FLEET_") && !known.contains(name) {
            let names = known.sorted().filter { $0.hasPrefix("FLEET_") }.joined(separator: ", ")
            faults.append("\(name): there is no such setting; expected one of \(names)")
        }
    }
}

extension Credentials {
    /// What simulator and workers share when no keys are given.
    package static func simulated(_ exchange: Exchange) -> Credentials {
        let (key, secret) = ("sim-\(exchange.rawValue)-key", "sim-\(exchange.rawValue)-secret")
        return Credentials(key: key, secret: exchange == .kraken ? Data(secret.utf8).base64EncodedString() : secret)
    }
}
