import Testing

@testable import Redis

@Suite("Redis URLs")
struct RedisURLTests {
    struct Good: Sendable, CustomTestStringConvertible {
        let text: String
        let address: RedisURL.Address
        var user: String?
        var password: String?
        var database = 0
        var usesTLS = false
        var caFile: String?
        var testDescription: String { text }
    }

    @Test(
        "a good URL is read in all its parts",
        arguments: [
            Good(text: "redis://127.0.0.1", address: .tcp(host: "127.0.0.1", port: 6379)),
            Good(text: "redis://cache:6380", address: .tcp(host: "cache", port: 6380)),
            Good(text: "redis://cache/3", address: .tcp(host: "cache", port: 6379), database: 3),
            Good(text: "redis://cache/", address: .tcp(host: "cache", port: 6379)),
            Good(text: "redis://[::1]:7000/1", address: .tcp(host: "::1", port: 7000), database: 1),
            Good(text: "redis://:secret@h", address: .tcp(host: "h", port: 6379), password: "secret"),
            Good(
                text: "redis://ann:p%40ss%2Fword@h:1/2", address: .tcp(host: "h", port: 1), user: "ann",
                password: "p@ss/word", database: 2),
            Good(text: "rediss://h", address: .tcp(host: "h", port: 6379), usesTLS: true),
            Good(
                text: "rediss://h:6390?ca_file=/etc/ca.pem", address: .tcp(host: "h", port: 6390), usesTLS: true,
                caFile: "/etc/ca.pem"),
            Good(text: "unix:///run/redis.sock", address: .unix(path: "/run/redis.sock")),
            Good(
                text: "unix://ann:pw@/run/my%20redis.sock?db=4", address: .unix(path: "/run/my redis.sock"),
                user: "ann", password: "pw", database: 4),
        ])
    func good(_ good: Good) throws {
        let url = try RedisURL(good.text)
        #expect(url.address == good.address)
        #expect(url.user == good.user)
        #expect(url.password == good.password)
        #expect(url.database == good.database)
        #expect(url.usesTLS == good.usesTLS)
        #expect(url.caFile == good.caFile)
    }

    @Test(
        "a bad URL is refused with a sentence that names what is wrong and never shows the password",
        arguments: [
            ("", "URL"), ("127.0.0.1:6379", "redis://"), ("http://:hunter2@h", "redis://"),
            ("redis://", "host"), ("redis://:hunter2@", "host"), ("redis://:hunter2@h:0", "port 0"),
            ("redis://:hunter2@h:65536", "port"), ("redis://:hunter2@h:99999999999999999999", "port"),
            ("redis://:hunter2@h/x", "database"),
            ("redis://:hunter2@h/-1", "database"), ("redis://:hunter2@h/1.5", "database"),
            ("redis://:hunter2@h?timeout=3", "parameter"),
            ("redis://user:12/hunter2@h", "database"), ("redis://:12?hunter2@h", "parameter"),
            ("redis://hunter2@h", "user"),
            ("redis://:hunter2@h?ca_file=/x", "ca_file"), ("unix://:hunter2@", "path"),
            ("unix://host/redis.sock", "path"), ("redis://:hunter2@h ost", ""),
            ("unix://:hunter2@/run/r.sock?db=x", "database"),
        ])
    func bad(_ text: String, _ named: String) throws {
        let error = try #require(throws: RedisError.self) { try RedisURL(text) }
        #expect(error.code == .invalidURL)
        #expect(named.isEmpty || error.message.contains(named), "\(error.message)")
        #expect(!error.message.contains("hunter2"))
    }

    @Test("a URL's description shows the address but neither user nor password")
    func description() throws {
        let url = try RedisURL("rediss://ann:hunter2@h:1234/5")
        #expect("\(url)" == "rediss://h:1234/5")
        #expect("\(try RedisURL("unix://ann:hunter2@/a?db=2"))" == "unix:///a?db=2")
    }
}
