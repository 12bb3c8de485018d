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
    package let user, password, caFile: String?
    package let database: Int
    package let usesTLS: Bool

    /// - Throws: `RedisError.invalidURL`, saying which part is wrong and what was expected, without the password.
    package init(_ text: String) throws(RedisError) {
        func invalid(_ what: String) -> RedisError { RedisError(.invalidURL, "REDIS_URL: \(what)") }
        guard let parts = URLComponents(string: text), let scheme = parts.scheme,
            ["redis", "rediss", "unix"].contains(scheme)
        else { throw invalid("not a URL that begins with redis://, rediss:// or unix://") }
        let query = Dictionary((parts.queryItems ?? []).map { ($0.name, $0.value ?? "") }) { $1 }
        // What stands in the wrong place may be a part of the password: it is never shown.
        guard query.keys.allSatisfy({ ["db", "ca_file"].contains($0) }) else {
            throw invalid("a parameter is not known; expected db or ca_file (is a ? in the password percent-encoded?)")
        }
        let host = (parts.host ?? "").trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
        // Too many digits leave the number nil, but not its place.
        let port = parts.port ?? (parts.rangeOfPort?.isEmpty ?? true ? 6379 : .max)
        if scheme == "unix" {
            guard parts.path.count > 1, host.isEmpty else { throw invalid("expected a path: unix:///run/redis.sock") }
            address = .unix(path: parts.path)
        } else {
            guard !host.isEmpty else { throw invalid("the host is missing") }
            guard (1...65535).contains(port) else { throw invalid("port \(port) is not in 1...65535") }
            address = .tcp(host: host, port: port)
        }
        let path = scheme == "unix" ? "" : parts.path.dropFirst()
        let number = query["db"] ?? (path.isEmpty ? "0" : String(path))
        guard let database = Int(number), database >= 0 else {
            throw invalid("the database is not a whole number from 0 (is a / in the password percent-encoded?)")
        }
        self.database = database
        password = parts.password.flatMap { $0.isEmpty ? nil : $0 }
        user = parts.user.flatMap { $0.isEmpty ? nil : $0 }
        // Many who write redis://secret@host mean a password; to the URL it is a user.
        guard user == nil || password != nil else { throw invalid("expected user:password@ or :password@") }
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
