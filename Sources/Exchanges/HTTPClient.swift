internal import CCurl
internal import Foundation
private import Synchronization

/// HTTP over one libcurl multi handle on a thread of its own: keep-alive, HTTP/2 where offered, TLS verified, gzip.
/// Redirects are not followed.
///
/// The body of a request leaves at most once. libcurl by itself sends a request again when a reused connection closes
/// before the first byte of the answer, which would send an order twice; a body that was read is never given again.
package final class HTTPClient: Sendable {
    package struct Settings: Sendable {
        package var connectTimeout: Duration = .seconds(5)
        /// For the whole exchange of request and answer.
        package var totalTimeout: Duration = .seconds(10)
        /// The largest body taken, in bytes after decompression.
        package var maxBodyBytes = 8 << 20
        package var userAgent = "exchange-worker/1.0"

        package init() {}
    }

    private struct Job: Sendable {
        let id: UInt64
        let request: HTTPRequest
        let continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>
    }

    private struct Inbox {
        var nextID: UInt64 = 0
        var added: [Job] = []
        var cancelled: [UInt64] = []
        var isClosed = false
    }

    private let settings: Settings
    private let now: @Sendable () -> Int64
    private let inbox = Mutex(Inbox())
    /// Used by the transfer thread alone, but for `curl_multi_wakeup`, which any thread may call while it is alive:
    /// the thread keeps `self` until it has ended, and frees the handle then.
    nonisolated(unsafe) private let multi: UnsafeMutableRawPointer?

    /// - Parameter now: unix milliseconds, for `HTTPResponse.receivedMs`.
    package init(settings: Settings = Settings(), now: @escaping @Sendable () -> Int64) {
        self.settings = settings
        self.now = now
        curl_global_init(Int(CURL_GLOBAL_DEFAULT))
        multi = curl_multi_init()
        // Idle connections are kept for a thousand requests in flight; the default keeps four times the running ones.
        _ = curl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, 1024)
        let thread = Thread { [self] in run() }
        thread.name = "http"
        thread.start()
    }

    /// Sends the request and waits for the whole answer. Cancelling the task abandons the transfer.
    package func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
        let id = inbox.withLock { inbox in
            inbox.nextID += 1
            return inbox.nextID
        }
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let job = Job(id: id, request: request, continuation: continuation)
                let isClosed = inbox.withLock { inbox in
                    if !inbox.isClosed { inbox.added.append(job) }
                    return inbox.isClosed
                }
                if isClosed { return continuation.resume(returning: .failure(HTTPError(.notSent, "client closed"))) }
                curl_multi_wakeup(multi)
            }
        } onCancel: {
            inbox.withLock { $0.cancelled.append(id) }
            curl_multi_wakeup(multi)
        }
        return try result.get()
    }

    /// Ends the thread; transfers in flight fail as cancelled.
    package func close() {
        inbox.withLock { $0.isClosed = true }
        curl_multi_wakeup(multi)
    }

    // MARK: - The transfer thread

    private func run() {
        var transfers: [UnsafeMutableRawPointer: Transfer] = [:]
        var isClosed = false
        while !isClosed {
            let work = inbox.withLock { inbox in
                defer { (inbox.added, inbox.cancelled) = ([], []) }
                return inbox
            }
            isClosed = work.isClosed
            for job in work.added {
                guard let easy = curl_easy_init() else {
                    job.continuation.resume(returning: .failure(HTTPError(.notSent, "out of memory")))
                    continue
                }
                let transfer = Transfer(job.id, job.request, limit: settings.maxBodyBytes, job.continuation)
                transfers[easy] = transfer
                configure(easy, transfer)
                curl_multi_add_handle(multi, easy)
            }
            for (easy, transfer) in transfers where isClosed || work.cancelled.contains(transfer.id) {
                transfers[easy] = nil
                end(easy, transfer, .failure(HTTPError(.cancelled, "cancelled")))
            }
            var count: Int32 = 0
            curl_multi_perform(multi, &count)
            while let message = curl_multi_info_read(multi, &count) {
                guard let easy = curl_message_handle(message), let transfer = transfers.removeValue(forKey: easy)
                else { continue }
                end(easy, transfer, transfer.result(of: easy, curl_message_result(message), receivedMs: now()))
            }
            if !isClosed { curl_multi_poll(multi, nil, 0, 10_000, nil) }
        }
        curl_multi_cleanup(multi)
    }

    private func end(
        _ easy: UnsafeMutableRawPointer, _ transfer: Transfer, _ result: Result<HTTPResponse, HTTPError>
    ) {
        curl_multi_remove_handle(multi, easy)
        curl_easy_cleanup(easy)
        transfer.continuation.resume(returning: result)
    }

    private func configure(_ easy: UnsafeMutableRawPointer, _ transfer: Transfer) {
        let request = transfer.request
        _ = curl_set_text(easy, CURLOPT_URL, request.url)
        _ = curl_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        _ = curl_set_text(easy, CURLOPT_USERAGENT, settings.userAgent)
        _ = curl_set_text(easy, CURLOPT_ACCEPT_ENCODING, "gzip")
        _ = curl_set_text(easy, CURLOPT_CUSTOMREQUEST, request.method.rawValue)
        _ = curl_set_long(easy, CURLOPT_NOSIGNAL, 1)
        _ = curl_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, settings.connectTimeout.milliseconds)
        _ = curl_set_long(easy, CURLOPT_TIMEOUT_MS, settings.totalTimeout.milliseconds)
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        _ = curl_set_pointer(easy, CURLOPT_WRITEDATA, context)
        _ = curl_set_pointer(easy, CURLOPT_HEADERDATA, context)
        _ = curl_set_sink(easy, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            Transfer.of(context)?.take(UnsafeRawBufferPointer(start: bytes, count: size * count)) ?? 0
        }
        _ = curl_set_sink(easy, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            Transfer.of(context)?.takeHeader(UnsafeRawBufferPointer(start: bytes, count: size * count)) ?? 0
        }
        if let body = request.body {
            _ = curl_set_long(easy, CURLOPT_POST, 1)
            _ = curl_set_long(easy, CURLOPT_POSTFIELDSIZE, body.utf8.count)
            _ = curl_set_pointer(easy, CURLOPT_READDATA, context)
            _ = curl_set_sink(easy, CURLOPT_READFUNCTION) { room, size, count, context in
                Transfer.of(context)?.give(UnsafeMutableRawBufferPointer(start: room, count: size * count)) ?? 0
            }
        }
        for (name, value) in request.headers {
            transfer.headerList = curl_slist_append(transfer.headerList, "\(name): \(value)")
        }
        _ = curl_set_list(easy, transfer.headerList)
    }
}

/// One request on its way. Used by the transfer thread alone; lives in its table while libcurl holds the pointer.
private final class Transfer {
    let id: UInt64
    let request: HTTPRequest
    let continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>
    var headerList: UnsafeMutablePointer<curl_slist>?
    private let limit: Int
    private var unsentBody: ArraySlice<UInt8>
    private var hasGivenBody = false
    private var isTooLarge = false
    private var headers: [String: String] = [:]
    private var body: [UInt8] = []

    init(
        _ id: UInt64, _ request: HTTPRequest, limit: Int,
        _ continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>
    ) {
        self.id = id
        self.request = request
        self.limit = limit
        self.continuation = continuation
        unsentBody = ArraySlice((request.body ?? "").utf8)
    }

    deinit { curl_slist_free_all(headerList) }

    static func of(_ context: UnsafeMutableRawPointer?) -> Transfer? {
        context.map { Unmanaged<Transfer>.fromOpaque($0).takeUnretainedValue() }
    }

    func take(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard body.count + bytes.count <= limit else {
            isTooLarge = true
            return 0
        }
        body.append(contentsOf: bytes)
        return bytes.count
    }

    func takeHeader(_ bytes: UnsafeRawBufferPointer) -> Int {
        let line = String(decoding: bytes, as: UTF8.self)
        if line.hasPrefix("HTTP/") { headers = [:] }
        if let colon = line.firstIndex(of: ":") {
            let value = line[line.index(after: colon)...].trimmingCharacters(in: .whitespacesAndNewlines)
            headers[line[..<colon].lowercased()] = value
        }
        return bytes.count
    }

    /// Hands the body to libcurl, once: asked again from its start, it refuses and the transfer ends.
    func give(_ room: UnsafeMutableRawBufferPointer) -> Int {
        if unsentBody.isEmpty, hasGivenBody { return Int(CURL_READFUNC_ABORT) }
        let part = unsentBody.prefix(room.count)
        room.copyBytes(from: part)
        unsentBody = unsentBody.dropFirst(part.count)
        hasGivenBody = true
        return part.count
    }

    func result(of easy: UnsafeMutableRawPointer, _ code: CURLcode, receivedMs: Int64) -> Result<
        HTTPResponse, HTTPError
    > {
        guard code == CURLE_OK else {
            let text = String(cString: curl_easy_strerror(code))
            if isTooLarge { return .failure(HTTPError(.tooLarge, "the answer is larger than \(limit) bytes")) }
            // Without its body no request is whole; a GET has none, and asking again does no harm.
            if request.body != nil, !hasGivenBody { return .failure(HTTPError(.notSent, text)) }
            return .failure(HTTPError(code == CURLE_OPERATION_TIMEDOUT ? .timedOut : .broken, text))
        }
        var status = 0
        _ = curl_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
        return .success(HTTPResponse(status: status, headers: headers, body: body, receivedMs: receivedMs))
    }
}

extension Duration {
    /// Whole milliseconds.
    package var milliseconds: Int {
        Int(components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000)
    }
}
