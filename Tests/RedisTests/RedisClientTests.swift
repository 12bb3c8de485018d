import Synchronization
import TestSupport
import Testing

@testable import Redis

@Suite("A Redis client that reconnects", .timeLimit(.minutes(1)))
struct RedisClientTests {
    /// Runs the client while the work goes on.
    private func running(_ client: RedisClient, _ work: () async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await client.run() }
            try await work()
            group.cancelAll()
        }
    }

    @Test("it comes back after CLIENT KILL, and says so once a change")
    func killedByServer() async throws {
        let server = try await RedisServer()
        let admin = try await connect(to: server.url, name: "admin")
        defer { admin.close() }
        let changes = Mutex<[String]>([])
        let client = try client(to: server.url, name: "victim") { loss in
            changes.withLock { $0.append(loss == nil ? "connected" : "lost") }
        }
        try await running(client) {
            try await client.connected()
            #expect(try await client.send(["CLIENT", "GETNAME"]).text == "victim")
            let id = try #require(try await client.send(["CLIENT", "ID"]).int)
            async let pending = client.pipeline([["BLPOP", "absent", 0]], timeout: .seconds(30))
            try await eventually("the blocking call has arrived") {
                try await admin.send(["CLIENT", "LIST", "ID", .int(id)]).text?.contains("cmd=blpop") == true
            }
            _ = try await admin.send(["CLIENT", "KILL", "ID", .int(id)])
            #expect(await pending[0].error?.code == .connectionLost)
            try await eventually("a second connection") {
                let now = try? await client.send(["CLIENT", "ID"]).int
                return now.map { $0 != id } ?? false
            }
        }
        #expect(changes.withLock { Array($0.prefix(3)) } == ["connected", "lost", "connected"])
    }

    @Test("it comes back after the server was killed and started again on the same socket")
    func restartedServer() async throws {
        let server = try await RedisServer()
        let losses = Mutex(0)
        let client = try client(to: server.url) { loss in
            if loss != nil { losses.withLock { $0 += 1 } }
        }
        try await running(client) {
            try await client.connected()
            server.kill()
            try await eventually("the loss is noticed") { !client.isConnected }
            let replies = await client.pipeline([["PING"], ["PING"]])
            #expect(replies.map { $0.error?.code } == [.connectionLost, .connectionLost])
            try await eventually("the loss is told") { losses.withLock { $0 } == 1 }
            let next = try await server.restarted()
            try await client.connected()
            #expect(try await client.send(["PING"]).text == "PONG")
            #expect(losses.withLock { $0 } == 1, "one loss is told once, however many tries fail")
            withExtendedLifetime(next) {}
        }
    }

    @Test("it waits for a server that is not there yet")
    func lateServer() async throws {
        let directory = try TemporaryDirectory()
        let client = try client(to: "unix://" + directory.file("redis.sock"))
        try await running(client) {
            #expect(await client.pipeline([["PING"]])[0].error?.code == .connectionLost)
            let server = try await RedisServer(in: directory)
            try await client.connected()
            #expect(try await client.send(["PING"]).text == "PONG")
            withExtendedLifetime(server) {}
        }
    }

    @Test("a cancelled wait for a connection ends with CancellationError")
    func cancelledWait() async throws {
        let client = try client(to: "redis://127.0.0.1:\(freePort())")
        let waiting = Task { try await client.connected() }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
    }

    @Test("a cancelled client closes its connection")
    func cancelledRun() async throws {
        let server = try await RedisServer()
        let admin = try await connect(to: server.url, name: "admin")
        defer { admin.close() }
        let client = try client(to: server.url, name: "leaving")
        try await running(client) { try await client.connected() }
        try await eventually("the connection is gone") {
            try await admin.send(["CLIENT", "LIST"]).text?.contains("name=leaving") == false
        }
    }
}
