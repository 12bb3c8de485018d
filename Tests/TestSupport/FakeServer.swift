internal import Foundation
private import Synchronization

/// A TCP server on the loopback interface whose behaviour a test writes down: one thread a connection.
package final class FakeServer: Sendable {
    package let port: Int
    private let listener: Int32
    private let open = Mutex<Set<Int32>>([])

    /// - Parameter serve: talks on one connection, which is closed when it returns.
    package init(_ serve: @escaping @Sendable (Connection) -> Void) {
        let (listener, port) = listen()
        (self.listener, self.port) = (listener, port)
        Thread { [weak self] in
            while true {
                let descriptor = accept(listener, nil, nil)
                guard descriptor >= 0 else { return }
                self?.open.withLock { _ = $0.insert(descriptor) }
                Thread { [weak self] in
                    serve(Connection(descriptor: descriptor))
                    let isOurs = self?.open.withLock { $0.remove(descriptor) != nil } ?? false
                    shutdown(descriptor, Int32(SHUT_RDWR))
                    if isOurs { close(descriptor) }
                }.start()
            }
        }.start()
    }

    deinit { stop() }

    /// Stops listening and breaks all connections.
    package func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        for descriptor in open.withLock({ $0 }) { shutdown(descriptor, Int32(SHUT_RDWR)) }
    }

    /// One accepted connection, read and written by its own thread.
    package struct Connection: Sendable {
        let descriptor: Int32

        /// What has come, at most 64 KiB; nil at the end.
        package func read() -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &bytes, bytes.count, 0)
            return count > 0 ? Array(bytes.prefix(count)) : nil
        }

        package func write(_ text: String) { write(Array(text.utf8)) }

        package func write(_ bytes: [UInt8]) {
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes {
                    send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
                guard count > 0 else { return }
                rest = rest.dropFirst(count)
            }
        }
    }
}

/// An HTTP/1.1 server with scripted answers. It keeps every request that came whole.
package final class FakeHTTPServer: Sendable {
    package struct Request: Sendable {
        package let method: String
        package let target: String
        /// Names in lower case.
        package let headers: [String: String]
        package let body: String
        /// Which connection it came on, from 1.
        package let connection: Int
    }

    package enum Reply: Sendable {
        case answer(status: Int = 200, headers: [String: String] = [:], body: [UInt8])
        /// The connection is closed without a word.
        case hangUp
        /// Nothing ever comes.
        case silence

        package static func text(
            _ body: String, status: Int = 200, headers: [String: String] = ["Content-Type": "application/json"]
        ) -> Reply {
            .answer(status: status, headers: headers, body: Array(body.utf8))
        }
    }

    private final class Log: Sendable {
        let requests = Mutex<[Request]>([])
        let connections = Atomic<Int>(0)
    }

    private let log: Log
    private let server: FakeServer
    package var requests: [Request] { log.requests.withLock { $0 } }
    package var url: String { "http://127.0.0.1:\(server.port)" }

    package init(_ answer: @escaping @Sendable (Request) -> Reply) {
        let log = Log()
        self.log = log
        server = FakeServer { connection in
            let number = log.connections.add(1, ordering: .relaxed).newValue
            var buffer: [UInt8] = []
            while let request = Self.next(connection, &buffer, number) {
                log.requests.withLock { $0.append(request) }
                switch answer(request) {
                case .answer(let status, let headers, let body):
                    let lines = headers.map { "\($0): \($1)\r\n" }.joined()
                    connection.write("HTTP/1.1 \(status) X\r\nContent-Length: \(body.count)\r\n\(lines)\r\n")
                    connection.write(body)
                case .hangUp: return
                case .silence: while connection.read() != nil {}
                }
            }
        }
    }

    package func stop() { server.stop() }

    private static func next(
        _ connection: FakeServer.Connection, _ buffer: inout [UInt8], _ number: Int
    ) -> Request? {
        let end = Array("\r\n\r\n".utf8)
        while true {
            if let range = buffer.firstRange(of: end) {
                let lines = String(decoding: buffer[..<range.lowerBound], as: UTF8.self).split(separator: "\r\n")
                let words = (lines.first ?? "").split(separator: " ").map(String.init)
                var headers: [String: String] = [:]
                for line in lines.dropFirst() {
                    let parts = line.split(separator: ":", maxSplits: 1)
                    guard parts.count == 2 else { continue }
                    headers[parts[0].lowercased()] = parts[1].trimmingCharacters(in: .whitespaces)
                }
                let length = headers["content-length"].flatMap(Int.init) ?? 0
                if buffer.count >= range.upperBound + length, words.count >= 2 {
                    let body = String(decoding: buffer[range.upperBound..<range.upperBound + length], as: UTF8.self)
                    buffer.removeFirst(range.upperBound + length)
                    return Request(
                        method: words[0], target: words[1], headers: headers, body: body, connection: number)
                }
            }
            guard let bytes = connection.read() else { return nil }
            buffer += bytes
        }
    }
}
