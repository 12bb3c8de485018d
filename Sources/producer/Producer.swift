internal import ArgumentParser
// Its `stdout` is a variable.
@preconcurrency internal import Foundation

/// The command line: enqueues jobs and looks at their results and at the queues.
@main
struct Producer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "producer", abstract: "Enqueue jobs for the exchange workers and look at what became of them.",
        discussion: """
            Redis is taken from REDIS_URL (redis://127.0.0.1:6379 when unset). Exchanges: binance, bybit, kraken.
            Exit codes: 0 done, 1 the job ended otherwise than ok, 2 timed out waiting, 64 usage.

            Jobs
              producer fetch-ticker binance BTC/USDT --wait
              producer submit-order kraken BTC/USD buy limit 0.01 --price 50000 --id my-1 --wait
              producer cancel-order kraken BTC/USD my-1 --wait
              producer refresh-cache binance --every 30s --id refresh
              producer fetch-ticker bybit ETH/USDT --in 5m
              producer enqueue jobs.jsonl
              producer result kraken my-1
            Operating
              producer stats
              producer delayed list
              producer delayed remove binance refresh
              producer dead list --exchange kraken --older-than 1h
              producer dead replay --reason attempts --dry-run
              producer order show kraken my-1
              producer order settle kraken my-1 filled --note "by hand"
              producer pause binance --cancel-only
              producer resume binance

            A job whose id is queued, running or delayed is refused where that job came by
            this command or fleet_enqueue, not by a plain XADD; and one whose result is
            still there, however it came (--wait prints that result). So is a job for a
            stream of FLEET_MAX_WAITING (1000000) jobs.
            """,
        subcommands: [
            FetchTicker.self, SubmitOrder.self, CancelOrder.self, RefreshCache.self, Enqueue.self, ShowResult.self,
            Stats.self, Delayed.self, Dead.self, OrderCommand.self, Pause.self, Resume.self,
        ])
    static let _errorPrefix = "producer: "

    static func main() async {
        signal(SIGPIPE, SIG_IGN)
        // What was printed may be lost as late as at the end. That nobody reads on (`| head -1`) is no fault.
        atexit {
            guard fflush(stdout) != 0 || ferror(stdout) != 0, errno != EPIPE else { return }
            complain("standard output: \(String(cString: strerror(errno)))")
            _exit(1)
        }
        // A negative amount would be taken for an option that is not there.
        let words = CommandLine.arguments
        if let place = words.indices.dropFirst().first(where: {
            words[$0].wholeMatch(of: /-[0-9.]+/) != nil && !words[$0 - 1].hasPrefix("--")
        }) {
            exit(withError: ValidationError("'\(words[place])': expected no negative number"))
        }
        await main(nil)
    }
}
