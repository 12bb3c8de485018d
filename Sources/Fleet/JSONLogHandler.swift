internal import Foundation
package import Logging

/// Writes a log line as one JSON object to standard error, for `LOG_FORMAT=json`.
package struct JSONLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level = .info

    package init() {}

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        let members = all.map { ",\(quoted($0)):\(quoted("\($1)"))" }.joined()
        let line =
            #"{"time_ms":\#(wallClockMs()),"level":"\#(event.level)","message":\#(quoted("\(event.message)"))\#(members)}"#
        // Where it cannot be written (a full disk, a closed pipe) the line is lost; `write(_:)` would end the process.
        try? FileHandle.standardError.write(contentsOf: Data((line + "\n").utf8))
    }
}
