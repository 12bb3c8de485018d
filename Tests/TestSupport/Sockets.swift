internal import Foundation

/// A TCP port of the loopback interface that was free a moment ago.
package func freePort() -> Int {
    let (descriptor, port) = listen()
    close(descriptor)
    return port
}

/// Listens on a free port of the loopback interface.
func listen() -> (descriptor: Int32, port: Int) {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
            _ = bind(descriptor, raw, length)
            _ = Glibc.listen(descriptor, 1024)
            _ = getsockname(descriptor, raw, &length)
        }
    }
    return (descriptor, Int(UInt16(bigEndian: address.sin_port)))
}

/// Whether nobody accepts connections on a Unix socket.
func isRefused(_ path: String) -> Bool {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { room in
        room.copyBytes(from: path.utf8.prefix(room.count - 1))
    }
    let length = socklen_t(MemoryLayout<sockaddr_un>.size)
    return withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, length) != 0 }
    }
}
