/// The exchanges served, by the name that keys, fields, metrics and the command line use.
package enum Exchange: String, Sendable, CaseIterable { case binance, bybit, kraken }

/// An API key and its secret. Its description shows neither.
package struct Credentials: Sendable, CustomStringConvertible {
    package let key, secret: String
    package var description: String { "Credentials(hidden)" }

    package init(key: String, secret: String) { (self.key, self.secret) = (key, secret) }
}

/// What an answer of an exchange means for the request that got it.
package enum Verdict: String, Sendable, CaseIterable {
    /// Back off; the same request is safe later.
    case wait
    /// Clock or nonce is off: set it right and send again; the request was not executed.
    case resync
    /// An order may exist: ask by its client order id before anything else.
    case unknown
    /// An order with this client order id exists: ask for it and take it as accepted.
    case dup
    /// No, for good.
    case permanent
    /// The key is refused: stop using it.
    case auth
}

/// A request that did not end well.
package struct ExchangeError: Error, Sendable, CustomStringConvertible {
    package let verdict: Verdict
    /// A stable word for programs: `rate_limited`, `exchange_refused`, `unknown_symbol`, `exchange_unavailable`,
    /// `malformed_answer` …
    package let code: String
    package private(set) var message: String
    /// The exchange's own code or text, e.g. `-1121`.
    package private(set) var exchangeCode: String?
    /// How long nobody should call; an answer of a limit always has it.
    package let retryAfter: Duration?
    /// Whether an order sent with this request can exist all the same.
    package let mayHaveExecuted: Bool
    /// Whether it speaks against the health of the endpoint.
    package let isOutage: Bool
    package var description: String { "\(code): \(message)" }

    package init(
        _ verdict: Verdict, code: String, _ message: String, exchangeCode: String? = nil, retryAfter: Duration? = nil,
        isUncertain: Bool = false, isOutage: Bool = false
    ) {
        (self.verdict, self.code, self.message) = (verdict, code, message)
        self.isOutage = isOutage || verdict == .unknown
        (self.exchangeCode, self.retryAfter) = (exchangeCode, retryAfter)
        mayHaveExecuted = verdict == .unknown || verdict == .dup || isUncertain
    }

    /// An error that the exchange answered with, in its own words. `retryAfter` holds where the answer names no time;
    /// `isNoMarket`: it says that it has no such market.
    init(
        _ verdict: Verdict, answered text: String, _ exchangeCode: String, _ response: HTTPResponse,
        retryAfter: Duration? = nil, isUncertain: Bool = false, isNoMarket: Bool = false
    ) {
        let codes: [Verdict: String] = [
            .wait: "rate_limited", .resync: "clock_or_nonce", .unknown: "exchange_unavailable",
            .dup: "duplicate_order", .permanent: "exchange_refused", .auth: "key_refused",
        ]
        // Three days are the longest ban there is.
        let seconds = response.headers["retry-after"].flatMap(Double.init).flatMap {
            0..<Double.infinity ~= $0 ? min($0, 259_200) : nil
        }
        let pause: Duration? = [403, 418, 429].contains(response.status) ? .seconds(10) : nil
        self.init(
            verdict, code: isNoMarket ? "unknown_symbol" : codes[verdict] ?? "", String(text.prefix(500)),
            exchangeCode: String(exchangeCode.prefix(100)),
            retryAfter: seconds.map { .seconds($0) } ?? retryAfter ?? pause,
            isUncertain: isUncertain || response.status >= 500, isOutage: response.status >= 500)
    }

    /// An answer whose body is not what the endpoint documents: HTML, nothing, other types.
    static func malformed(_ response: HTTPResponse) -> ExchangeError {
        let type = response.headers["content-type"] ?? "no type"
        let text = "HTTP \(response.status) with \(response.body.count) bytes of \(type) is not a documented answer"
        return ExchangeError(.unknown, code: "malformed_answer", text, exchangeCode: "\(response.status)")
    }

    /// The same with another meaning for the request that it is about.
    package func meaning(_ verdict: Verdict) -> ExchangeError {
        ExchangeError(verdict, code: code, message, exchangeCode: exchangeCode, retryAfter: retryAfter)
    }

    /// The same without a key or secret that the exchange repeated in its words.
    package func hiding(_ credentials: Credentials?) -> ExchangeError {
        var copy = self
        for word in [credentials?.secret, credentials?.key].compactMap({ $0 }) where !word.isEmpty {
            copy.message.replace(word, with: "***")
            copy.exchangeCode?.replace(word, with: "***")
        }
        return copy
    }
}
