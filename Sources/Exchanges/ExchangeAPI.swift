/// A request in the fleet's words.
package enum Call: Sendable {
    case time
    case instruments
    /// At least one market; the answer has those the exchange could name.
    case tickers([Instrument])
    case submit(OrderRequest, OrderReference)
    case cancel(OrderReference)
    /// Where an order stands. Exchanges that keep ended orders elsewhere are asked there with `history`. With `others`,
    /// at most `ordersAtOnce` in all and each with the exchange's id, all of them are answered.
    case query(OrderReference, others: [OrderReference] = [])
    case history(OrderReference)

    /// Whether it sends an order.
    package var isSubmit: Bool { if case .submit = self { true } else { false } }

    /// Whether the call needs the account's key.
    package var isPrivate: Bool {
        switch self {
        case .time, .instruments, .tickers: false
        case .submit, .cancel, .query, .history: true
        }
    }
}

package enum Answer: Sendable {
    /// Unix milliseconds by the exchange's clock.
    case time(Int64)
    case instruments([Instrument])
    case tickers([Ticker])
    case order(Order)
    /// By the exchange's id.
    case orders([String: Order])
    /// The exchange took the request and says no more; ask with `query`.
    case accepted(exchangeOrderId: String?)
    /// There is no such order, or none that could be cancelled.
    case absent

    /// A market list; one without any market that could be understood is no answer.
    static func markets(_ list: [Instrument]?) -> Answer? {
        list.flatMap { $0.isEmpty ? nil : .instruments($0) }
    }
}

/// When and as what a private request is made.
package struct Stamp: Sendable {
    /// Unix milliseconds by the exchange's clock.
    package let timestampMs: Int64
    /// Kraken: greater than every nonce this key has used.
    package let nonce: UInt64

    package init(timestampMs: Int64, nonce: UInt64) { (self.timestampMs, self.nonce) = (timestampMs, nonce) }
}

/// What a call takes out of one of the exchange's budgets: of a bucket that holds `burst` and is refilled by `perSecond`.
/// Chosen so that burst and refill together stay within the exchange's own window, wherever it begins, with a little
/// room for requests that are on their way.
package struct Charge: Sendable, Hashable {
    /// Whether all behind one address share the budget, or all with one key.
    package enum Scope: Sendable { case address, account }

    package let name: String
    package let scope: Scope
    package let cost, burst, perSecond: Double

    init(_ name: String, _ scope: Scope, _ cost: Double, burst: Double, perSecond: Double) {
        (self.name, self.scope, self.cost, self.burst, self.perSecond) = (name, scope, cost, burst, perSecond)
    }
}

/// What the exchange says has been used of a budget: since its window of `windowMs` began at a multiple of that, or,
/// where it rolls, in the last `windowMs`.
package struct Usage: Sendable {
    package let name: String
    package let used: Double
    package let windowMs: Int
    package var rolls = false
}

/// One exchange as pure functions: a call becomes a request, an answer becomes a value. No state, no clock, no socket.
package protocol ExchangeAPI: Sendable {
    var exchange: Exchange { get }
    var baseURL: String { get }
    var credentials: Credentials? { get }
    /// Whether ended orders are only found with `Call.history`.
    var keepsHistoryApart: Bool { get }
    /// How long after its time stamp an order may still be accepted: the receive window and the exchange's own
    /// processing. It may be shown later still.
    var acceptance: Duration { get }
    /// The most markets that one ticker request should name: the cheapest form.
    var tickersAtOnce: Int { get }

    /// The most orders that one query can ask for by the exchange's id; 1: it has to be asked for each.
    var ordersAtOnce: Int { get }

    /// The client order id of a job id: the same for the same job, in the exchange's alphabet and length.
    func clientOrderId(jobId: String) -> String
    func charges(for call: Call) -> [Charge]
    /// What the headers of an answer to the call say of the budgets.
    func usage(in response: HTTPResponse, of call: Call) -> [Usage]
    /// - Throws: `ExchangeError` of verdict `auth` when the call is private and there are no credentials.
    func request(_ call: Call, _ stamp: Stamp) throws(ExchangeError) -> HTTPRequest
    /// What an answer says; nil where it is not of the form that the exchange documents.
    /// - Throws: `ExchangeError` with the verdict on every answer that is no success.
    func read(_ response: HTTPResponse, to call: Call) throws(ExchangeError) -> Answer?
}

extension ExchangeAPI {
    package var ordersAtOnce: Int { 1 }

    /// A job id that fits 36 characters itself; of a longer one, 36 characters of its SHA-256.
    package func clientOrderId(jobId: String) -> String {
        jobId.utf8.count <= 36 ? jobId : "x" + Signing.hex(Signing.sha256(jobId.utf8)).prefix(35)
    }

    package func usage(in response: HTTPResponse, of call: Call) -> [Usage] { [] }

    /// - Throws: `ExchangeError` on every answer that is no success, and on what is no documented answer.
    package func answer(to call: Call, _ response: HTTPResponse) throws(ExchangeError) -> Answer {
        if let answer = try read(response, to: call) { return answer }
        throw .malformed(response)
    }

    func credentialsOrThrow() throws(ExchangeError) -> Credentials {
        if let credentials { return credentials }
        let name = exchange.rawValue.uppercased()
        throw ExchangeError(.auth, code: "no_key", "\(name)_KEY and \(name)_SECRET are not set")
    }
}

/// The rows of a list answer that name one of the markets, each made with the market's unified symbol.
func named<Value>(_ instruments: [Instrument], _ rows: [JSON], _ make: (JSON, String) -> Value?) -> [Value] {
    let symbols = Dictionary(instruments.map { ($0.id, $0.symbol) }, uniquingKeysWith: { first, _ in first })
    return rows.compactMap { row in row["symbol"].text.flatMap { symbols[$0] }.flatMap { make(row, $0) } }
}
