import TestSupport
import Testing

@testable import Redis

@Suite("Redis commands and replies", .timeLimit(.minutes(1)))
struct RedisReplyTests {
    enum Bytes: CaseIterable {
        case none, all, looksLikeReply, mebibyte

        var value: [UInt8] {
            switch self {
            case .none: []
            case .all: Array(0...255)
            case .looksLikeReply: Array("\r\n$-1\r\n".utf8)
            case .mebibyte: [UInt8](repeating: 0xfe, count: 1 << 20)
            }
        }
    }

    @Test("arguments and replies carry any bytes", arguments: Bytes.allCases)
    func anyBytes(_ kind: Bytes) async throws {
        let bytes = kind.value
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        _ = try await redis.send(["SET", .bytes(bytes + [0]), .bytes(bytes)])
        #expect(try await redis.send(["GET", .bytes(bytes + [0])]) == .bytes(bytes))
        #expect(try await redis.send(["STRLEN", .bytes(bytes + [0])]).int == bytes.count)
        #expect(try await redis.send(["ECHO", .bytes(bytes)]) == .bytes(bytes))
    }

    @Test("each shape of reply becomes its value")
    func shapes() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        let replies = await redis.pipeline([
            ["SET", "text", "grün"], ["GET", "text"], ["GET", "absent"], ["INCRBY", "number", .int(-9_000_000_000)],
            ["RPUSH", "list", "a", "b"], ["LRANGE", "list", 0, -1], ["LRANGE", "absent", 0, -1],
            ["EVAL", "return {1,{2,{'three',false}},{}}", 0], ["BLPOP", "absent", "0.001"],
        ])
        #expect(replies[0].text == "OK")
        #expect(replies[1].text == "grün")
        #expect(replies[2] == .null)
        #expect(replies[3].int == -9_000_000_000)
        #expect(replies[4] == .integer(2))
        #expect(replies[5].array?.compactMap(\.text) == ["a", "b"])
        #expect(replies[6] == .array([]))
        let nested = RedisValue.array([.bytes(Array("three".utf8)), .null])
        #expect(replies[7] == .array([.integer(1), .array([.integer(2), nested]), .array([])]))
        #expect(replies[8] == .null)
    }

    @Test("ten thousand commands in flight on one connection are answered in order")
    func manyInFlight() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for call in 0..<2000 {
                group.addTask {
                    let texts = (0..<5).map { "\(call)-\($0)" }
                    let replies = await redis.pipeline(texts.map { ["ECHO", .text($0)] }, timeout: .seconds(30))
                    return replies.compactMap(\.text) == texts
                }
            }
            for try await isInOrder in group { #expect(isInOrder) }
        }
        let texts = (0..<10_000).map(String.init)
        let replies = await redis.pipeline(texts.map { ["ECHO", .text($0)] }, timeout: .seconds(30))
        #expect(replies.compactMap(\.text) == texts)
    }

    @Test("an empty pipeline needs no answer")
    func emptyPipeline() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        #expect(await redis.pipeline([]).isEmpty)
    }

    @Test(
        "a server's error has its first word as code, in its place between good replies",
        arguments: [
            (["LPUSH", "text", "x"], "WRONGTYPE"), (["NOSUCHCOMMAND"], "ERR"), (["GET"], "ERR"),
            (["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"], "NOGROUP"),
            (["EVALSHA", "0000000000000000000000000000000000000000", 0], "NOSCRIPT"),
        ] as [(RedisCommand, String)])
    func serverErrors(_ command: RedisCommand, _ word: String) async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        let replies = await redis.pipeline([["SET", "text", "1"], command, ["GET", "text"]])
        #expect(replies[0].text == "OK")
        #expect(replies[1].error?.code == .server(word))
        #expect(replies[2].text == "1")
        #expect(await code { _ = try await redis.send(command) } == .server(word))
    }

    @Test("functions are loaded and called")
    func functions() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        defer { redis.close() }
        let library = """
            #!lua name=test
            redis.register_function('twice', function(keys, argv) return {keys[1], argv[1] * 2} end)
            """
        #expect(try await redis.send(["FUNCTION", "LOAD", .text(library)]).text == "test")
        #expect(await code { _ = try await redis.send(["FUNCTION", "LOAD", .text(library)]) } == .server("ERR"))
        let reply = try await redis.send(["FCALL", "twice", 1, "key", 21])
        #expect(reply == .array([.bytes(Array("key".utf8)), .integer(42)]))
    }

    @Test("a command's description of faults never shows its arguments")
    func errorsHideArguments() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url)
        server.kill()
        let replies = await redis.pipeline([["SET", "key", "hunter2"], ["GET", "key"]])
        #expect(replies.count == 2)
        for reply in replies {
            #expect(reply.error?.code == .connectionLost)
            #expect(reply.error.map { !"\($0)".contains("hunter2") } == true)
        }
    }
}
