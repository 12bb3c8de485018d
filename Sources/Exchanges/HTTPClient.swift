internal import CCurl
internal import Foundation
private import Synchronization

/// HTTP over one libcurl multi handle on a thread of its own: keep-alive, HTTP/2 where offered, TLS verified, gzip.
/// Redirects are not followed.
///
/// A request leaves at most once. libcurl by itself sends it again, up to five times, when a reused connection closes
/// before the first byte of the answer: an order twice, and tickers that no budget has paid for.
package final class HTTPClient: Sendable {
    private struct Inbox {
        var added: [Transfer] = []
        var cancelled: [Transfer] = []
        var isClosed = false
    }

    private let totalTimeout: Duration
    private let maxBodyBytes: Int
    private let now: @Sendable () -> Int64
    private let inbox = Mutex(Inbox())
    /// Used by the transfer thread alone, which frees it once `isClosed`; but for `curl_multi_wakeup`, which is called
    /// under the lock by any thread while not `isClosed`.
    nonisolated(unsafe) private let multi: UnsafeMutableRawPointer?

    /// `totalTimeout` is for the whole exchange of request and answer, of which connecting may take five seconds;
    /// `maxBodyBytes` the largest body taken, after decompression; `now` gives unix milliseconds for
    /// `HTTPResponse.receivedMs`.
    package init(
        totalTimeout: Duration = .seconds(10), maxBodyBytes: Int = 8 << 20, now: @escaping @Sendable () -> Int64
    ) {
        (self.totalTimeout, self.maxBodyBytes, self.now) = (totalTimeout, maxBodyBytes, now)
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
        let transfer = Transfer(request, limit: request.maxBodyBytes ?? maxBodyBytes)
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                transfer.continuation = continuation
                let isTaken = post { inbox in
                    inbox.added.append(transfer)
                    // A task cancelled before this has said so of a transfer that nobody knew.
                    if Task.isCancelled { inbox.cancelled.append(transfer) }
                }
                if !isTaken { transfer.fail(.notSent, "the client is closed") }
            }
        } onCancel: {
            post { $0.cancelled.append(transfer) }
        }
        return try result.get()
    }

    /// Ends the thread; transfers in flight fail as cancelled.
    package func close() { post { $0.isClosed = true } }

    /// Tells the transfer thread something. Returns whether that has not been closed before.
    @discardableResult
    private func post(_ change: (inout Inbox) -> Void) -> Bool {
        inbox.withLock { inbox in
            if inbox.isClosed { return false }
            // What is there already has woken it.
            if inbox.added.isEmpty, inbox.cancelled.isEmpty { curl_multi_wakeup(multi) }
            change(&inbox)
            return true
        }
    }

    // MARK: - The transfer thread

    private func run() {
        var running: [UnsafeMutableRawPointer?: Transfer] = [:]
        func remove(_ easy: UnsafeMutableRawPointer?) -> Transfer? {
            curl_multi_remove_handle(multi, easy)
            return running.removeValue(forKey: easy)
        }
        while true {
            let work = inbox.withLock { inbox in
                defer { (inbox.added, inbox.cancelled) = ([], []) }
                return inbox
            }
            for transfer in work.added {
                configure(transfer)
                running[transfer.easy] = transfer
                if curl_multi_add_handle(multi, transfer.easy) != CURLM_OK {
                    remove(transfer.easy)?.fail(.notSent, "out of memory")
                }
            }
            for transfer in work.isClosed ? Array(running.values) : work.cancelled {
                remove(transfer.easy)?.fail(.cancelled, "cancelled")
            }
            if work.isClosed { break }
            var count: Int32 = 0
            curl_multi_perform(multi, &count)
            while let message = curl_multi_info_read(multi, &count) {
                let code = curl_message_result(message)
                remove(curl_message_handle(message))?.end(code, receivedMs: now())
            }
            curl_multi_poll(multi, nil, 0, 10_000, nil)
        }
        curl_multi_cleanup(multi)
    }

    private func configure(_ transfer: Transfer) {
        let (easy, request) = (transfer.easy, transfer.request)
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        _ = curl_set_text(easy, CURLOPT_URL, request.url)
        _ = curl_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        _ = curl_set_text(easy, CURLOPT_USERAGENT, "exchange-worker/1.0")
        _ = curl_set_text(easy, CURLOPT_ACCEPT_ENCODING, "gzip")
        _ = curl_set_text(easy, CURLOPT_CUSTOMREQUEST, request.method.rawValue)
        _ = curl_set_long(easy, CURLOPT_NOSIGNAL, 1)
        _ = curl_set_long(easy, CURLOPT_CONNECTTIMEOUT, 5)
        // Else a name that nobody looks up holds up all transfers after its timeout, until the system gives it up.
        _ = curl_set_long(easy, CURLOPT_QUICK_EXIT, 1)
        _ = curl_set_long(easy, CURLOPT_TIMEOUT_MS, Int(totalTimeout / .milliseconds(1)))
        _ = curl_set_list(easy, transfer.headers)
        _ = curl_set_pointer(easy, CURLOPT_WRITEDATA, context)
        _ = curl_set_sink(easy, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            Transfer.of(context)?.take(UnsafeRawBufferPointer(start: bytes, count: size * count)) ?? 0
        }
        _ = curl_set_pointer(easy, CURLOPT_PREREQDATA, context)
        _ = curl_set_prereq(easy) { context, _, _, _, _ in Transfer.of(context)?.begin() ?? CURL_PREREQFUNC_ABORT }
        guard let body = request.body else { return }
        _ = curl_set_long(easy, CURLOPT_POSTFIELDSIZE, body.utf8.count)
        _ = curl_set_text(easy, CURLOPT_COPYPOSTFIELDS, body)
    }
}

/// One request on its way, with libcurl's handle of it, which has an unretained pointer back.
///
/// Unchecked: made by the task that sends, it is the transfer thread's alone from the inbox on, which keeps it as long
/// as libcurl has the handle.
private final class Transfer: @unchecked Sendable {
    let request: HTTPRequest
    let easy = curl_easy_init()
    let headers: UnsafeMutablePointer<curl_slist>?
    var continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>?
    private let limit: Int
    private var isBegun = false
    private var isTooLarge = false
    private var body: [UInt8] = []

    init(_ request: HTTPRequest, limit: Int) {
        (self.request, self.limit) = (request, limit)
        headers = request.headers.reduce(nil) { curl_slist_append($0, "\($1.name): \($1.value)") }
    }

    deinit {
        curl_easy_cleanup(easy)
        curl_slist_free_all(headers)
    }

    static func of(_ context: UnsafeMutableRawPointer?) -> Transfer? {
        context.map { Unmanaged<Transfer>.fromOpaque($0).takeUnretainedValue() }
    }

    func take(_ bytes: UnsafeRawBufferPointer) -> Int {
        isTooLarge = body.count + bytes.count > limit
        if isTooLarge { return 0 }
        body.append(contentsOf: bytes)
        return bytes.count
    }

    /// Lets libcurl send the request on a connection that stands, once: asked again, the transfer ends.
    func begin() -> Int32 {
        defer { isBegun = true }
        return isBegun ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK
    }

    func fail(_ cause: HTTPError.Cause, _ description: String) {
        continuation?.resume(returning: .failure(HTTPError(cause: cause, description: description)))
    }

    func end(_ code: CURLcode, receivedMs: Int64) {
        if isTooLarge { return fail(.tooLarge, "the answer is larger than \(limit) bytes") }
        guard code == CURLE_OK else {
            let cause: HTTPError.Cause = !isBegun ? .notSent : code == CURLE_OPERATION_TIMEDOUT ? .timedOut : .broken
            return fail(cause, String(cString: curl_easy_strerror(code)))
        }
        var status = 0
        _ = curl_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
        var headers: [String: String] = [:]
        var header: UnsafeMutablePointer<curl_header>?
        // Of the last answer, where others went before it, as `100 Continue` does.
        while let next = curl_easy_nextheader(easy, UInt32(CURLH_HEADER), -1, header) {
            headers[String(cString: next.pointee.name).lowercased()] = String(cString: next.pointee.value)
            header = next
        }
        continuation?.resume(
            returning: .success(HTTPResponse(status: status, headers: headers, body: body, receivedMs: receivedMs)))
    }
}
