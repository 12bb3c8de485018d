internal import Foundation

/// Where a Redis server is and how to log in.
///
/// `redis://[user:password@]host[:6379][/database]`, `rediss://…[?ca_file=/path/ca.pem]` for TLS with the server's
/// certificate verified (against the file's authorities, else the system's), and
/// `unix://[user:password@]/path/to/socket[?db=1]`. User, password and path are percent-decoded.
package struct RedisURL: Sendable, Equatable, CustomStringConvertible {
    package enum Address: Sendable, Equatable {
        case tcp(host: String, port: Int)
        case unix(path: String)
    }

    package let address: Address
    package let user: String?
    package let password: String?
    package let database: Int
    package let usesTLS: Bool
    package let caFile: String?

    /// `redis://127.0.0.1:6379`
    package static let local = RedisURL()

    private init() {
        address = .tcp(host: "127.0.0.1", port: 6379)
        (user, password, caFile) = (nil, nil, nil)
        (database, usesTLS) = (0, false)
    }

    /// - Throws: `RedisError.invalidURL`, saying which part is wrong and what was expected, without the password.
    package init(_ text: String) throws(RedisError) {
        func invalid(_ what: String) -> RedisError { RedisError(.invalidURL, "REDIS_URL: \(what)") }
        guard let parts = URLComponents(string: text), let scheme = parts.scheme else {
            throw invalid("not a URL; expected redis://, rediss:// or unix://")
        }
        guard ["redis", "rediss", "unix"].contains(scheme) else {
            throw invalid("scheme '\(scheme)' is not known; expected redis://, rediss:// or unix://")
        }
        var query: [String: String] = [:]
        for item in parts.queryItems ?? [] { query[item.name] = item.value ?? "" }
        if let unknown = query.keys.sorted().first(where: { !["db", "ca_file"].contains($0) }) {
            throw invalid("parameter '\(unknown)' is not known; expected db or ca_file")
        }
        if scheme == "unix" {
            guard parts.path.count > 1, (parts.host ?? "").isEmpty else {
                throw invalid("a unix:// URL needs an absolute path: unix:///run/redis.sock")
            }
            address = .unix(path: parts.path)
        } else {
            guard let host = parts.host, !host.isEmpty else { throw invalid("the host is missing") }
            let port = parts.port ?? 6379
            guard (1...65535).contains(port) else { throw invalid("port \(port) is not in 1...65535") }
            address = .tcp(host: host.trimmingCharacters(in: CharacterSet(charactersIn: "[]")), port: port)
        }
        let path = scheme == "unix" ? "" : String(parts.path.drop { $0 == "/" })
        let number = query["db"] ?? (path.isEmpty ? "0" : path)
        guard let database = Int(number), database >= 0 else {
            throw invalid("database '\(number)' is not a whole number from 0")
        }
        self.database = database
        // redis://secret@host is refused: it is a user name to the URL, and a password to many who write it.
        password = parts.password.flatMap { $0.isEmpty ? nil : $0 }
        user = parts.user.flatMap { $0.isEmpty ? nil : $0 }
        guard user == nil || password != nil else {
            throw invalid("a user without a password; expected user:password@ or :password@")
        }
        usesTLS = scheme == "rediss"
        caFile = query["ca_file"]
        guard caFile == nil || usesTLS else { throw invalid("ca_file needs rediss://") }
    }

    /// The address without user and password, for logs.
    package var description: String {
        switch address {
        case .tcp(let host, let port): "\(usesTLS ? "rediss" : "redis")://\(host):\(port)/\(database)"
        case .unix(let path): "unix://\(path)?db=\(database)"
        }
    }
}
