import ArgumentParser
import Foundation
import Hummingbird
import Logging
import NIOCore

@main struct Simulator: AsyncParsableCommand {
    enum Switch: String, ExpressibleByArgument { case on, off }

    static let configuration = CommandConfiguration(
        commandName: "exchange-simulator", abstract: "Binance, Bybit and Kraken spot under /binance, /bybit, /kraken.")
    @Option(help: "Port to listen on; 0 picks a free one.") var port = 8900
    @Option(help: "Address to listen on.") var host = "127.0.0.1"
    @Option(help: "Seed of prices and faults.") var seed: UInt64 = 1
    @Option(help: "Enforce and report the exchanges' rate limits.") var limits = Switch.on
    @Option(help: "Markets of each exchange: those beyond its own are made up, e.g. S012/USDT.") var markets = 0

    func validate() throws {
        if !(0...65_535).contains(port) { throw ValidationError("--port '\(port)': expected 0 to 65535") }
        if !(0...1000).contains(markets) { throw ValidationError("--markets '\(markets)': expected 0 to 1000") }
    }

    func run() async throws {
        // In a container this is process 1, which no signal ends by default.
        for number in [SIGINT, SIGTERM] { signal(number) { _ in _exit(0) } }
        let server = try Server(seed: seed, limited: limits == .on, markets: markets), host = host
        let app = Application(
            responder: CallbackResponder(callback: server.respond),
            configuration: .init(address: .hostname(host, port: port)),
            onServerRunning: { channel in
                let line = "exchange-simulator listening on http://\(host):\(channel.localAddress?.port ?? 0)\n"
                FileHandle.standardOutput.write(Data(line.utf8))
            }, logger: Logger(label: "exchange-simulator") { _ in SwiftLogNoOpLogHandler() })
        try await app.run()
    }
}
