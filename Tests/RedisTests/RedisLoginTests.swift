import TestSupport
import Testing

@testable import Redis

@Suite("Login, database and TLS", .timeLimit(.minutes(1)))
struct RedisLoginTests {
    @Test("the password of the URL logs in; a wrong one or none is refused and never shown")
    func password() async throws {
        let server = try await RedisServer(["--requirepass", "hunter2"])
        let path = server.socket
        let redis = try await connect(to: "unix://:hunter2@\(path)")
        defer { redis.close() }
        #expect(try await redis.send(["PING"]).text == "PONG")
        #expect(await code { _ = try await connect(to: "unix://:wrong-hunter@\(path)") } == .server("WRONGPASS"))
        #expect(await code { _ = try await connect(to: "unix://\(path)") } == .server("NOAUTH"))
        do {
            _ = try await connect(to: "unix://:wrong-hunter@\(path)")
        } catch {
            #expect(!"\(error)".contains("wrong-hunter"))
        }
    }

    @Test("an ACL user logs in with user:password@ and has that user's rights")
    func user() async throws {
        let server = try await RedisServer([
            "--user", "default", "off", "--user", "ann", "on", ">s3cr&t/x", "~fleet:*", "+@all", "-flushall", "-client",
        ])
        let redis = try await connect(to: "unix://ann:s3cr%26t%2Fx@\(server.socket)")
        defer { redis.close() }
        #expect(try await redis.send(["SET", "fleet:x", "1"]).text == "OK")
        #expect(await code { _ = try await redis.send(["SET", "other", "1"]) } == .server("NOPERM"))
        #expect(await code { _ = try await redis.send(["FLUSHALL"]) } == .server("NOPERM"))
        let wrong = "unix://ann:nope@\(server.socket)"
        #expect(await code { _ = try await connect(to: wrong) } == .server("WRONGPASS"))
    }

    @Test("the database number selects it; one that is not there is refused")
    func database() async throws {
        let server = try await RedisServer()
        let second = try await connect(to: server.url + "?db=2")
        let first = try await connect(to: server.url)
        defer {
            second.close()
            first.close()
        }
        _ = try await second.send(["SET", "key", "2"])
        #expect(try await first.send(["GET", "key"]) == .null)
        #expect(try await second.send(["GET", "key"]).text == "2")
        #expect(await code { _ = try await connect(to: server.url + "?db=99") } == .server("ERR"))
    }

    @Test("connections carry their name")
    func name() async throws {
        let server = try await RedisServer()
        let redis = try await connect(to: server.url, name: "host-1-abcd-read")
        defer { redis.close() }
        #expect(try await redis.send(["CLIENT", "GETNAME"]).text == "host-1-abcd-read")
    }

    @Test("TLS is verified: the authority and the host name must fit")
    func tls() async throws {
        let directory = try TemporaryDirectory()
        try await authority("ca", in: directory)
        try await authority("other", in: directory)
        try await certificate("server", for: "DNS:localhost,IP:127.0.0.1", in: directory)
        try await certificate("elsewhere", for: "DNS:redis.example", in: directory)
        let (good, bad) = (freePort(), freePort())
        let server = try await RedisServer(tls(port: good, "server", directory))
        let stranger = try await RedisServer(tls(port: bad, "elsewhere", directory))
        let file = "?ca_file=" + directory.file("ca.pem")

        for host in ["localhost", "127.0.0.1"] {
            let redis = try await connect(to: "rediss://\(host):\(good)/1\(file)")
            #expect(try await redis.send(["PING"]).text == "PONG", "\(host)")
            redis.close()
        }
        let refused = [
            "rediss://localhost:\(good)": "no authority given: the system's do not know it",
            "rediss://localhost:\(good)?ca_file=\(directory.file("other.pem"))": "another authority",
            "rediss://localhost:\(good)?ca_file=\(directory.file("absent.pem"))": "no such file",
            "rediss://localhost:\(bad)\(file)": "another host's certificate",
            "rediss://127.0.0.1:\(bad)\(file)": "another address's certificate",
            "redis://localhost:\(good)": "no TLS to a TLS port",
        ]
        for (url, reason) in refused {
            let code = await code { try await connect(to: url).close() }
            #expect(code == .connectionLost || code == .timedOut, "\(reason): \(url)")
        }
        withExtendedLifetime((server, stranger)) {}
    }

    private func tls(port: Int, _ name: String, _ directory: TemporaryDirectory) -> [String] {
        [
            "--tls-port", "\(port)", "--tls-cert-file", directory.file(name + ".pem"), "--tls-key-file",
            directory.file(name + ".key"), "--tls-ca-cert-file", directory.file("ca.pem"), "--tls-auth-clients", "no",
        ]
    }

    private func openssl(_ arguments: [String], in directory: TemporaryDirectory) async throws {
        let program = try Program(["openssl"] + arguments, in: directory)
        let status = try await program.exited()
        try #require(status == 0, "\(program.errors)")
    }

    private func authority(_ name: String, in directory: TemporaryDirectory) async throws {
        try await openssl(
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", "/CN=test \(name)", "-keyout", directory.file(name + ".key"), "-out",
                directory.file(name + ".pem"),
            ], in: directory)
    }

    private func certificate(_ name: String, for subjects: String, in directory: TemporaryDirectory) async throws {
        let request = directory.file(name + ".csr")
        try await openssl(
            [
                "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=\(name)",
                "-keyout", directory.file(name + ".key"), "-out", request,
            ], in: directory)
        let extra = try directory.write("subjectAltName=\(subjects)\n", to: name + ".ext")
        try await openssl(
            [
                "x509", "-req", "-in", request, "-CA", directory.file("ca.pem"), "-CAkey", directory.file("ca.key"),
                "-CAcreateserial", "-days", "2", "-extfile", extra, "-out", directory.file(name + ".pem"),
            ], in: directory)
    }
}
