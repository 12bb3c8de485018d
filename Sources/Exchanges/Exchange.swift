/// The exchanges served, by the name that keys, fields, metrics and the command line use.
package enum Exchange: String, Sendable, CaseIterable, Codable {
    case binance, bybit, kraken
}

/// An API key and its secret. Its description shows neither.
package struct Credentials: Sendable, CustomStringConvertible {
    package let key: String
    package let secret: String

    package init(key: String, secret: String) {
        self.key = key
        self.secret = secret
    }

    package var description: String { "Credentials(hidden)" }
}

/// What an answer of an exchange means for the request that got it (`exchanges.md`, "Verdicts").
package enum Verdict: String, Sendable, Codable {
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

/// A request that did not end `ok`.
package struct ExchangeError: Error, Sendable, CustomStringConvertible {
    package let verdict: Verdict
    /// A stable word for programs: `rate_limited`, `exchange_refused`, `exchange_unavailable`, `malformed_answer` …
    package let code: String
    package let message: String
    /// The exchange's own code or text, e.g. `-1121`.
    package let exchangeCode: String?
    package let retryAfter: Duration?
    /// Whether an order sent with this request can exist all the same.
    package let mayHaveExecuted: Bool

    package init(
        _ verdict: Verdict, code: String, _ message: String, exchangeCode: String? = nil, retryAfter: Duration? = nil,
        mayHaveExecuted: Bool? = nil
    ) {
        self.verdict = verdict
        self.code = code
        self.message = message
        self.exchangeCode = exchangeCode
        self.retryAfter = retryAfter
        self.mayHaveExecuted = mayHaveExecuted ?? (verdict == .unknown || verdict == .dup)
    }

    /// An error that the exchange answered with `status` and its own `exchangeCode`.
    package init(
        _ verdict: Verdict, answered text: String, _ exchangeCode: String, _ response: HTTPResponse,
        retryAfter: Duration? = nil
    ) {
        let code =
            switch verdict {
            case .wait: "rate_limited"
            case .resync: "clock_or_nonce"
            case .unknown: "exchange_unavailable"
            case .dup: "duplicate_order"
            case .permanent: "exchange_refused"
            case .auth: "key_refused"
            }
        let seconds = response.header("retry-after").flatMap(Double.init)
        self.init(
            verdict, code: code, text, exchangeCode: exchangeCode, retryAfter: retryAfter ?? seconds.map { .seconds($0) },
            mayHaveExecuted: verdict == .unknown || verdict == .dup || response.status >= 500)
    }

    /// An answer whose body is not what the endpoint documents: HTML, nothing, other types.
    static func malformed(_ response: HTTPResponse) -> ExchangeError {
        ExchangeError(
            .unknown, code: "malformed_answer",
            "HTTP \(response.status) with \(response.body.count) bytes of \(response.header("content-type") ?? "no type")"
                + " is not a documented answer", exchangeCode: "\(response.status)")
    }

    package var description: String { "\(code): \(message)" }
}
