import NIOCore
import TestSupport
import Testing

@testable import Redis

@Suite("Faults of a Redis connection", .timeLimit(.minutes(1)))
struct RedisFaultTests {
    @Test("a reply that does not come in time closes the connection and fails the call with timedOut")
    func timeout() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        let other = try await connect(to: server.url)
        defer { other.close() }
        async let late = redis.pipeline([["PING"], ["BLPOP", "absent", 0]], timeout: .seconds(5))
        let replies = await late
        #expect(replies[0].text == "PONG", "what was answered in time is an answer")
        #expect(replies[1].error?.code == .timedOut)
        try await redis.closed.get()
        let after = await redis.pipeline([["PING"]])
        #expect(after[0].error != nil)
        #expect(try await other.send(["PING"]).text == "PONG")
    }

    @Test("a paused server times calls out, and a new connection works when it goes on")
    func pausedServer() async throws {
        let server = try await RedisServer()
        let admin = try await connect(to: server.url)
        defer { admin.close() }
        let redis = try await connect(to: server.url)
        _ = try await admin.send(["CLIENT", "PAUSE", 60_000, "ALL"])
        #expect(await code { _ = try await redis.send(["PING"], timeout: .milliseconds(100)) } == .timedOut)
        // UNPAUSE is held up by the pause as well: the server is replaced instead.
        server.kill()
        let next = try await server.restarted()
        let again = try await connect(to: next.url)
        defer { again.close() }
        #expect(try await again.send(["PING"]).text == "PONG")
    }

    @Test("a call with a long timeout outlives one with a short timeout that was answered")
    func mixedTimeouts() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        #expect(await redis.pipeline([["PING"]], timeout: .seconds(2))[0].text == "PONG")
        // Beyond the time at which the first would have been given up.
        #expect(await redis.pipeline([["BLPOP", "absent", "2.5"]], timeout: .seconds(20))[0] == .null)
    }

    /// A server that answers the greeting, then `count` commands of what follows, then does `end`.
    private func server(answering count: Int, then end: String?) -> FakeServer {
        FakeServer { connection in
            var seen = 0
            while let bytes = connection.read() {
                let text = String(decoding: bytes, as: UTF8.self)
                for _ in text.split(separator: "\r\n").filter({ $0.hasPrefix("*") }) {
                    if seen <= count { connection.write("+\(seen)\r\n") }
                    seen += 1
                }
                if seen > count + 1 {
                    if let end { connection.write(end) }
                    if end?.isEmpty ?? true { return }
                }
            }
        }
    }

    @Test("a connection lost in mid-pipeline fails exactly the unanswered calls", arguments: [0, 1, 4, 7])
    func lostInMidPipeline(_ answered: Int) async throws {
        let fake = server(answering: answered, then: nil)
        defer { fake.stop() }
        let redis = try await connect(to: "redis://127.0.0.1:\(fake.port)")
        let replies = await redis.pipeline((0..<8).map { ["ECHO", .int($0)] })
        #expect(replies.count == 8)
        for (index, reply) in replies.enumerated() {
            if index < answered {
                #expect(reply.text == "\(index + 1)")
            } else {
                #expect(reply.error?.code == .connectionLost)
            }
        }
    }

    @Test("calls that were answered before the loss keep their answers, and those behind them fail")
    func lostBetweenCalls() async throws {
        let fake = server(answering: 3, then: nil)
        defer { fake.stop() }
        let redis = try await connect(to: "redis://127.0.0.1:\(fake.port)")
        async let first = redis.pipeline([["A"], ["B"]])
        async let second = redis.pipeline([["C"], ["D"], ["E"]])
        async let third = redis.pipeline([["F"]])
        let all = await (first, second, third)
        let texts = (all.0 + all.1 + all.2).filter { $0.error == nil }.count
        #expect(texts == 3)
        let lost = (all.0 + all.1 + all.2).filter { $0.error?.code == .connectionLost }.count
        #expect(lost == 3)
    }

    @Test(
        "bytes that are not RESP fail the call as a malformed reply and close the connection",
        arguments: ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{0}\u{1}\u{2}\u{3}", "*-7\r\n", ":12x\r\n"])
    func garbage(_ bytes: String) async throws {
        let fake = server(answering: 1, then: bytes)
        defer { fake.stop() }
        let redis = try await connect(to: "redis://127.0.0.1:\(fake.port)")
        let replies = await redis.pipeline([["A"], ["B"]], timeout: .seconds(20))
        #expect(replies[0].text == "1")
        #expect(replies[1].error?.code == .malformedReply)
        try await redis.closed.get()
    }

    @Test("a reply that nobody asked for closes the connection")
    func unasked() async throws {
        let fake = server(answering: 1, then: "+one\r\n+two\r\n+three\r\n")
        defer { fake.stop() }
        let redis = try await connect(to: "redis://127.0.0.1:\(fake.port)")
        _ = await redis.pipeline([["A"], ["B"]])
        try await redis.closed.get()
        #expect(await redis.pipeline([["C"]])[0].error != nil)
    }

    @Test(
        "a server that cannot be reached is a lost connection",
        arguments: ["redis://127.0.0.1:%", "unix:///tmp/none/r"])
    func unreachable(_ template: String) async throws {
        let url = template.replacing("%", with: "\(freePort())")
        #expect(await code { _ = try await connect(to: url) } == .connectionLost)
    }

    @Test("a server that accepts and never answers the greeting times out")
    func silentGreeting() async throws {
        let fake = FakeServer { connection in while connection.read() != nil {} }
        defer { fake.stop() }
        let url = "redis://127.0.0.1:\(fake.port)"
        #expect(await code { _ = try await connect(to: url, timeout: .seconds(3)) } == .timedOut)
    }
}
