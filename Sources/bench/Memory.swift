internal import ArgumentParser
internal import Foundation

struct Memory: Measurement {
    static let configuration = CommandConfiguration(
        abstract: "Measure a worker's resident memory while very many jobs wait.")
    @Option(help: "Jobs that wait.", transform: count) var waiting = 1_000_000
    @Flag(help: "Print JSON.") var json = false

    func measure(_ rig: Rig) throws -> Table {
        try rig.begin(workers: 1)
        try rig.fill(waiting)
        let idle = rig.workers[0].resident("VmRSS")
        try rig.release()
        try rig.drained(waiting)
        let (most, after) = (rig.workers[0].resident("VmHWM"), rig.workers[0].resident("VmRSS"))
        return Table(
            columns: ["resident_mib"],
            rows: [("idle", [idle]), ("most while \(waiting) wait", [most]), ("after draining", [after])])
    }
}

extension Process {
    /// A figure of its memory, e.g. `VmRSS`, in MiB.
    fileprivate func resident(_ name: String) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(processIdentifier)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
        return (line?.split { !$0.isNumber }.first.flatMap { Double($0) } ?? 0) / 1024
    }
}
