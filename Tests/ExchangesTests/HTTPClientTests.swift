import Foundation
import TestSupport
import Testing

@testable import Exchanges

@Suite("HTTP client", .timeLimit(.minutes(1)))
struct HTTPClientTests {
    /// The kind of the error that the request ends with, nil when it is answered.
    private func failure(_ client: HTTPClient, _ request: HTTPRequest) async -> HTTPError.Cause? {
        do throws(HTTPError) {
            _ = try await client.send(request)
            return nil
        } catch {
            return error.cause
        }
    }

    @Test("method, headers and body leave as they were given, and the answer comes back whole")
    func wholeExchange() async throws {
        let server = FakeHTTPServer { _ in .text("{\"ok\":true}", status: 418, headers: ["X-Mbx-Used": "7 ", "a": "b"])
        }
        let client = httpClient()
        defer { client.close() }
        let headers = [("X-KEY", "value"), ("Content-Type", "application/x-www-form-urlencoded")]
        let request = post(server.url + "/a?b=%2F", "x=1&y=ü", headers: headers.map { (name: $0, value: $1) })
        let answer = try await client.send(request)
        #expect(answer.status == 418)
        #expect(answer.headers["x-mbx-used"] == "7")
        #expect(String(decoding: answer.body, as: UTF8.self) == "{\"ok\":true}")
        #expect(answer.receivedMs == 1_700_000_000_000)
        _ = try await client.send(HTTPRequest(.delete, server.url + "/d?x=1"))
        let seen = server.requests
        #expect(seen.map(\.method) == ["POST", "DELETE"])
        #expect(seen[0].target == "/a?b=%2F")
        #expect(seen[0].headers["x-key"] == "value")
        #expect(seen[0].headers["content-type"] == "application/x-www-form-urlencoded")
        #expect(seen[0].headers["expect"] == nil)
        #expect(seen[0].body == "x=1&y=ü")
    }

    @Test("requests one after another share a connection")
    func keepAlive() async throws {
        let server = FakeHTTPServer { _ in .text("{}") }
        let client = httpClient()
        defer { client.close() }
        for index in 0..<5 {
            _ = try await client.send(index % 2 == 0 ? get(server.url + "/g") : post(server.url + "/p", "x"))
        }
        #expect(Set(server.requests.map(\.connection)) == [1])
    }

    @Test("a kept connection that closes on a POST without a word does not have it sent a second time")
    func postLeavesOnce() async throws {
        let server = FakeHTTPServer { $0.method == "POST" ? .hangUp : .text("{}") }
        let client = httpClient()
        defer { client.close() }
        for round in 1...20 {
            _ = try await client.send(get(server.url + "/warm"))
            #expect(await failure(client, post(server.url + "/order", "id=\(round)")) == .broken)
            #expect(server.requests.filter { $0.body == "id=\(round)" }.count == 1)
        }
        let posts = server.requests.filter { $0.method == "POST" }
        #expect(posts.count == 20)
        // The case is real: the POST came on the connection that had served the GET.
        let warm = Set(server.requests.filter { $0.method == "GET" }.map(\.connection))
        #expect(posts.allSatisfy { warm.contains($0.connection) })
    }

    @Test("a body too long for one write still leaves once")
    func longPostLeavesOnce() async throws {
        let server = FakeHTTPServer { $0.method == "POST" ? .hangUp : .text("{}") }
        let client = httpClient()
        defer { client.close() }
        _ = try await client.send(get(server.url + "/warm"))
        let body = String(repeating: "0123456789abcdef", count: 40_000)
        #expect(await failure(client, post(server.url + "/order", body)) == .broken)
        #expect(server.requests.filter { $0.method == "POST" }.map(\.body) == [body])
    }

    @Test("nor does a GET, however many connections are kept: it was paid for once")
    func getLeavesOnce() async throws {
        let server = FakeHTTPServer { $0.target == "/gone" ? .hangUp : .text("{}") }
        let client = httpClient()
        defer { client.close() }
        try await withThrowingDiscardingTaskGroup { warm in
            for _ in 0..<5 { warm.addTask { _ = try await client.send(get(server.url + "/warm")) } }
        }
        #expect(await failure(client, get(server.url + "/gone")) == .broken)
        #expect(server.requests.count { $0.target == "/gone" } == 1)
    }

    @Test("a compressed answer is unpacked")
    func gzip() async throws {
        let server = FakeHTTPServer { request in
            guard request.headers["accept-encoding"]?.contains("gzip") == true else { return .text("not asked for") }
            return .answer(headers: ["Content-Encoding": "gzip"], body: Array(Self.packed ?? Data()))
        }
        let client = httpClient()
        defer { client.close() }
        let answer = try await client.send(get(server.url))
        #expect(String(decoding: answer.body, as: UTF8.self) == "{\"serverTime\":1499827319559}")
    }

    /// `{"serverTime":1499827319559}` through gzip.
    private static let packed = Data(base64Encoded: "H4sIAAAAAAACA6tWKk4tKkstCsnMTVWyMjSxtLQwMjc2tDQ1tawFAOAkYN4cAAAA")

    @Test("an answer beyond the cap ends as tooLarge, packed or not")
    func cap() async throws {
        let server = FakeHTTPServer { _ in .text(String(repeating: "x", count: 100_001)) }
        let client = httpClient(maxBodyBytes: 100_000)
        defer { client.close() }
        #expect(await failure(client, get(server.url)) == .tooLarge)
        #expect(await failure(client, post(server.url, "x")) == .tooLarge)
        let exact = FakeHTTPServer { _ in .text(String(repeating: "x", count: 100_000)) }
        #expect(try await client.send(get(exact.url)).body.count == 100_000)
        // A request may expect more.
        let large = HTTPRequest(.get, server.url, maxBodyBytes: 100_001)
        #expect(try await client.send(large).body.count == 100_001)
    }

    @Test("a redirect is an answer and is not followed", arguments: [301, 302, 307, 308])
    func redirect(_ status: Int) async throws {
        let elsewhere = FakeHTTPServer { _ in .text("{}") }
        let target = elsewhere.url
        let server = FakeHTTPServer { _ in .text("", status: status, headers: ["Location": target]) }
        let client = httpClient()
        defer { client.close() }
        #expect(try await client.send(get(server.url)).status == status)
        #expect(try await client.send(post(server.url, "x")).status == status)
        #expect(elsewhere.requests.isEmpty)
    }

    @Test("an answer that does not come in time is timedOut, for a POST as for a GET")
    func timeout() async throws {
        let server = FakeHTTPServer { _ in .silence }
        let client = httpClient(totalTimeout: .milliseconds(200))
        defer { client.close() }
        #expect(await failure(client, get(server.url)) == .timedOut)
        #expect(await failure(client, post(server.url, "x")) == .timedOut)
        #expect(server.requests.map(\.method) == ["GET", "POST"])
    }

    @Test("a cancelled task abandons its transfer, and the client goes on")
    func cancellation() async throws {
        let server = FakeHTTPServer { $0.target == "/slow" ? .silence : .text("{}") }
        let client = httpClient()
        defer { client.close() }
        let slow = Task { await failure(client, get(server.url + "/slow")) }
        try await eventually("the request has arrived") { !server.requests.isEmpty }
        slow.cancel()
        #expect(await slow.value == .cancelled)
        #expect(try await client.send(get(server.url + "/fast")).status == 200)
    }

    @Test("a task that was cancelled before it sends ends as cancelled")
    func cancelledBefore() async throws {
        let server = FakeHTTPServer { _ in .silence }
        let client = httpClient()
        defer { client.close() }
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            return await failure(client, get(server.url))
        }
        task.cancel()
        let kind = await task.value
        #expect(kind == .cancelled)
    }

    @Test("a connection that is refused is certain not to have carried an order")
    func refused() async throws {
        let client = httpClient()
        defer { client.close() }
        let url = "http://127.0.0.1:\(freePort())/"
        #expect(await failure(client, post(url, "x")) == .notSent)
        #expect(await failure(client, get(url)) != nil)
    }

    @Test("only http and https are spoken", arguments: ["file:///etc/passwd", "ftp://127.0.0.1/", "not a url", ""])
    func protocols(_ url: String) async throws {
        let client = httpClient()
        defer { client.close() }
        #expect(await failure(client, get(url)) != nil)
    }

    @Test("three hundred requests at once are all answered, each with its own answer")
    func concurrent() async throws {
        let server = FakeHTTPServer { .text($0.method + $0.target + $0.body) }
        let client = httpClient()
        defer { client.close() }
        let right = try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<300 {
                group.addTask {
                    let isPost = index % 2 == 0
                    let request = isPost ? post(server.url + "/\(index)", "b\(index)") : get(server.url + "/\(index)")
                    let answer = try await client.send(request)
                    let expected = isPost ? "POST/\(index)b\(index)" : "GET/\(index)"
                    return String(decoding: answer.body, as: UTF8.self) == expected
                }
            }
            return try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        #expect(right == 300)
        #expect(server.requests.count == 300)
    }

    @Test("a closed client refuses at once and ends what was under way")
    func closed() async throws {
        let server = FakeHTTPServer { _ in .silence }
        let client = httpClient()
        let waiting = Task { await failure(client, get(server.url)) }
        try await eventually("the request has arrived") { !server.requests.isEmpty }
        client.close()
        #expect(await waiting.value == .cancelled)
        #expect(await failure(client, post(server.url, "x")) == .notSent)
    }
}
