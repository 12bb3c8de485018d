internal import Foundation

/// A TCP server that carries bytes between its clients and another server, past a hook that sees every chunk.
package final class Proxy: Sendable {
    package enum Direction: Sendable { case request, answer }
    package enum Upstream: Sendable {
        case unix(String)
        case port(Int)
    }

    private let server: FakeServer
    package var port: Int { server.port }

    /// `passes` is shown each chunk of a connection (by its descriptor) before it is carried on; false: it is not, and
    /// the connection ends.
    package init(to upstream: Upstream, passes: @escaping @Sendable (Direction, Int32, [UInt8]) -> Bool) {
        server = FakeServer { client in
            let descriptor = dial(upstream)
            guard descriptor >= 0 else { return }
            let server = FakeServer.Connection(descriptor: descriptor)
            let ended = DispatchSemaphore(value: 0)
            Thread {
                while let bytes = server.read(), passes(.answer, descriptor, bytes) { client.write(bytes) }
                shutdown(client.descriptor, Int32(SHUT_RDWR))
                ended.signal()
            }.start()
            while let bytes = client.read(), passes(.request, descriptor, bytes) { server.write(bytes) }
            shutdown(descriptor, Int32(SHUT_RDWR))
            // A descriptor that is closed is soon another connection's, which must not be shut down.
            ended.wait()
            close(descriptor)
        }
    }
}

/// Connects to a local server; below 0 when it cannot.
private func dial(_ upstream: Proxy.Upstream) -> Int32 {
    func connected(_ descriptor: Int32, _ address: some Any) -> Int32 {
        let code = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout.size(ofValue: address)))
            }
        }
        if code == 0 { return descriptor }
        close(descriptor)
        return -1
    }
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    switch upstream {
    case .unix(let path):
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        return connected(socket(AF_UNIX, kind, 0), address)
    case .port(let port):
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return connected(socket(AF_INET, kind, 0), address)
    }
}
