internal import CCurl
internal import Foundation
private import Synchronization

/// HTTP over one libcurl multi handle on a thread of its own: keep-alive, HTTP/2 where offered, TLS verified, gzip.
/// Redirects are not followed.
///
/// The body of a request leaves at most once. libcurl by itself sends a request again when a reused connection closes
/// before the first byte of the answer, which would send an order twice; a body that was read is never given again.
package final class HTTPClient: Sendable {
    private typealias Continuation = CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>

    private struct Inbox {
        var nextID = 0
        var added: [(id: Int, request: HTTPRequest, continuation: Continuation)] = []
        var cancelled: Set<Int> = []
        var isClosed = false
    }

    private let connectTimeout, totalTimeout: Duration
    private let maxBodyBytes: Int
    private let now: @Sendable () -> Int64
    private let inbox = Mutex(Inbox())
    /// Used by the transfer thread alone, which frees it once `isClosed`; but for `curl_multi_wakeup`, which is called
    /// under the lock by any thread while not `isClosed`.
    nonisolated(unsafe) private let multi: UnsafeMutableRawPointer?

    /// `totalTimeout` is for the whole exchange of request and answer, `maxBodyBytes` the largest body taken, after
    /// decompression, `now` gives unix milliseconds for `HTTPResponse.receivedMs`.
    package init(
        connectTimeout: Duration = .seconds(5), totalTimeout: Duration = .seconds(10), maxBodyBytes: Int = 8 << 20,
        now: @escaping @Sendable () -> Int64
    ) {
        (self.connectTimeout, self.totalTimeout) = (connectTimeout, totalTimeout)
        (self.maxBodyBytes, self.now) = (maxBodyBytes, now)
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
                // A task cancelled before this is not in the inbox; one cancelled later finds its entry there.
                let failure: HTTPError.Cause? = inbox.withLock { inbox in
                    if inbox.isClosed || Task.isCancelled { return inbox.isClosed ? .notSent : .cancelled }
                    inbox.added.append((id, request, continuation))
                    curl_multi_wakeup(multi)
                    return nil
                }
                guard let failure else { return }
                continuation.resume(returning: .failure(HTTPError(cause: failure, description: "not sent: \(failure)")))
            }
        } onCancel: {
            inbox.withLock { inbox in
                inbox.cancelled.insert(id)
                if !inbox.isClosed { curl_multi_wakeup(multi) }
            }
        }
        return try result.get()
    }

    /// Ends the thread; transfers in flight fail as cancelled.
    package func close() {
        inbox.withLock { inbox in
            if !inbox.isClosed { curl_multi_wakeup(multi) }
            inbox.isClosed = true
        }
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
            for (id, request, continuation) in work.added {
                let transfer = Transfer(id, request, limit: maxBodyBytes, continuation)
                guard let easy = curl_easy_init() else {
                    transfer.end(.failure(HTTPError(cause: .notSent, description: "out of memory")))
                    continue
                }
                transfers[easy] = transfer
                configure(easy, transfer)
                curl_multi_add_handle(multi, easy)
            }
            if isClosed || !work.cancelled.isEmpty {
                for (easy, transfer) in transfers where isClosed || work.cancelled.contains(transfer.id) {
                    transfers[easy] = nil
                    remove(easy)
                    transfer.end(.failure(HTTPError(cause: .cancelled, description: "cancelled")))
                }
            }
            var count: Int32 = 0
            curl_multi_perform(multi, &count)
            while let message = curl_multi_info_read(multi, &count) {
                let code = curl_message_result(message)
                guard let easy = curl_message_handle(message), let transfer = transfers.removeValue(forKey: easy)
                else { continue }
                let result = transfer.result(of: easy, code, receivedMs: now())
                remove(easy)
                transfer.end(result)
            }
            if !isClosed { curl_multi_poll(multi, nil, 0, 10_000, nil) }
        }
        curl_multi_cleanup(multi)
    }

    private func remove(_ easy: UnsafeMutableRawPointer) {
        curl_multi_remove_handle(multi, easy)
        curl_easy_cleanup(easy)
    }

    private func configure(_ easy: UnsafeMutableRawPointer, _ transfer: Transfer) {
        let request = transfer.request
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        _ = curl_set_text(easy, CURLOPT_URL, request.url)
        _ = curl_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        _ = curl_set_text(easy, CURLOPT_USERAGENT, "exchange-worker/1.0")
        _ = curl_set_text(easy, CURLOPT_ACCEPT_ENCODING, "gzip")
        _ = curl_set_text(easy, CURLOPT_CUSTOMREQUEST, request.method.rawValue)
        _ = curl_set_long(easy, CURLOPT_NOSIGNAL, 1)
        _ = curl_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, Int(connectTimeout / .milliseconds(1)))
        _ = curl_set_long(easy, CURLOPT_TIMEOUT_MS, Int(totalTimeout / .milliseconds(1)))
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
    let id: Int
    let request: HTTPRequest
    var headerList: UnsafeMutablePointer<curl_slist>?
    private let continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>
    private let limit: Int
    private var unsentBody: ArraySlice<UInt8>
    private var hasGivenBody = false
    private var isTooLarge = false
    private var headers: [String: String] = [:]
    private var body: [UInt8] = []

    init(
        _ id: Int, _ request: HTTPRequest, limit: Int,
        _ continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>
    ) {
        (self.id, self.request, self.limit, self.continuation) = (id, request, limit, continuation)
        unsentBody = ArraySlice((request.body ?? "").utf8)
    }

    deinit { curl_slist_free_all(headerList) }

    static func of(_ context: UnsafeMutableRawPointer?) -> Transfer? {
        context.map { Unmanaged<Transfer>.fromOpaque($0).takeUnretainedValue() }
    }

    func end(_ result: Result<HTTPResponse, HTTPError>) { continuation.resume(returning: result) }

    func take(_ bytes: UnsafeRawBufferPointer) -> Int {
        isTooLarge = body.count + bytes.count > limit
        if isTooLarge { return 0 }
        body.append(contentsOf: bytes)
        return bytes.count
    }

    func takeHeader(_ bytes: UnsafeRawBufferPointer) -> Int {
        if bytes.starts(with: "HTTP/".utf8) { headers = [:] }
        if let colon = bytes.firstIndex(of: UInt8(ascii: ":")) {
            var value = bytes[(colon + 1)...].drop { $0 <= 32 }
            while let last = value.last, last <= 32 { value.removeLast() }
            headers[String(decoding: bytes[..<colon], as: UTF8.self).lowercased()] = String(
                decoding: value, as: UTF8.self)
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

    func result(
        of easy: UnsafeMutableRawPointer, _ code: CURLcode, receivedMs: Int64
    ) -> Result<HTTPResponse, HTTPError> {
        var status = 0
        _ = curl_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
        if code == CURLE_OK {
            return .success(HTTPResponse(status: status, headers: headers, body: body, receivedMs: receivedMs))
        }
        let text = isTooLarge ? "the answer is larger than \(limit) bytes" : String(cString: curl_easy_strerror(code))
        // Without its body no request is whole; a GET has none, and asking again does no harm.
        let cause: HTTPError.Cause =
            if isTooLarge { .tooLarge } else if request.body != nil, !hasGivenBody {
                .notSent
            } else if code == CURLE_OPERATION_TIMEDOUT { .timedOut } else { .broken }
        return .failure(HTTPError(cause: cause, description: text))
    }
}
