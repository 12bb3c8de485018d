import Testing

@testable import Fleet

@Suite("Breaker")
struct BreakerTests {
    /// Lets the breaker see that many failures, a second apart from `second` on.
    private func fail(_ breaker: inout Breaker, times: Int, from second: Double) throws {
        for index in 0..<times {
            let time = at(second + Double(index))
            let permit = try permit(&breaker, time)
            _ = breaker.record(success: false, permit, at: time)
        }
    }

    @Test("it opens after the threshold's number of failures in a row, and stops calls until its cooldown ends")
    func opens() throws {
        var breaker = breaker(threshold: 3, cooldown: 10)
        try fail(&breaker, times: 2, from: 0)
        #expect(breaker.state == .closed && !breaker.isStopping(at: at(2)))
        let permit = try permit(&breaker, at(2))
        #expect(breaker.record(success: false, permit, at: at(2)) == .open)
        #expect(breaker.permit(at: at(2)) == nil && breaker.isStopping(at: at(2)))
        #expect(breaker.permit(at: at(11.9)) == nil && breaker.isStopping(at: at(11.9)))
        #expect(!breaker.isStopping(at: at(12)))
    }

    @Test("a success while closed forgets the failures before it")
    func successForgets() throws {
        var breaker = breaker(threshold: 3)
        for round in 0..<5 {
            try fail(&breaker, times: 2, from: Double(round * 10))
            let permit = try permit(&breaker, at(Double(round * 10 + 5)))
            #expect(breaker.record(success: true, permit, at: at(Double(round * 10 + 5))) == nil)
        }
        #expect(breaker.state == .closed)
        try fail(&breaker, times: 3, from: 60)
        #expect(breaker.state == .open)
    }

    @Test("half-open lets one probe through; its success closes, and the failures begin from nothing")
    func probeSucceeds() throws {
        var breaker = breaker(threshold: 2, cooldown: 10)
        try fail(&breaker, times: 2, from: 0)
        let probe = try permit(&breaker, at(11))
        #expect(breaker.state == .halfOpen)
        #expect(breaker.permit(at: at(11)) == nil, "one probe only")
        #expect(breaker.record(success: true, probe, at: at(12)) == .closed)
        try fail(&breaker, times: 1, from: 13)
        #expect(breaker.state == .closed)
    }

    @Test("a probe's failure opens it for another whole cooldown")
    func probeFails() throws {
        var breaker = breaker(threshold: 2, cooldown: 10)
        try fail(&breaker, times: 2, from: 0)
        let probe = try permit(&breaker, at(11))
        #expect(breaker.record(success: false, probe, at: at(15)) == .open)
        #expect(breaker.permit(at: at(24.9)) == nil)
        #expect(breaker.permit(at: at(25)) != nil)
    }

    @Test("a probe that never reports gives its permit back after another cooldown, and its late report is ignored")
    func silentProbe() throws {
        var breaker = breaker(threshold: 2, cooldown: 10)
        try fail(&breaker, times: 2, from: 0)
        let silent = try permit(&breaker, at(11))
        #expect(breaker.permit(at: at(20.9)) == nil)
        let second = try permit(&breaker, at(21))
        #expect(breaker.record(success: true, silent, at: at(22)) == nil)
        #expect(breaker.state == .halfOpen)
        #expect(breaker.record(success: true, second, at: at(23)) == .closed)
    }

    @Test("a probe that was not a call gives its permit back at once")
    func releasedProbe() throws {
        var breaker = breaker(threshold: 2, cooldown: 10)
        try fail(&breaker, times: 2, from: 0)
        let probe = try permit(&breaker, at(11))
        #expect(breaker.record(success: nil, probe, at: at(11.5)) == nil)
        let second = try permit(&breaker, at(11.5))
        #expect(breaker.record(success: nil, second, at: at(11.5), wait: .seconds(1)) == nil)
        #expect(breaker.permit(at: at(12.4)) == nil && breaker.isStopping(at: at(12.4)), "another's is under way")
        #expect(breaker.state != .closed)
        #expect(breaker.permit(at: at(12.5)) != nil)
    }

    @Test("reports of calls that began before the state changed are ignored")
    func lateReports() throws {
        var breaker = breaker(threshold: 2, cooldown: 10)
        var early: [Breaker.Permit] = []
        for _ in 0..<4 { early.append(try permit(&breaker, at(0))) }
        try fail(&breaker, times: 2, from: 1)
        #expect(breaker.state == .open)
        #expect(breaker.record(success: true, early[0], at: at(3)) == nil)
        #expect(breaker.state == .open, "a late success does not close it")
        let probe = try permit(&breaker, at(13))
        #expect(breaker.record(success: false, early[1], at: at(13)) == nil)
        #expect(breaker.state == .halfOpen, "a late failure does not end the probe")
        #expect(breaker.record(success: nil, early[2], at: at(13)) == nil)
        #expect(breaker.permit(at: at(13)) == nil, "a late release does not free the probe's permit")
        #expect(breaker.record(success: true, probe, at: at(14)) == .closed)
        #expect(breaker.record(success: false, early[3], at: at(14)) == nil)
    }

    @Test("releases while closed count neither as failures nor as successes")
    func releaseWhileClosed() throws {
        var breaker = breaker(threshold: 2)
        try fail(&breaker, times: 1, from: 0)
        for _ in 0..<5 { #expect(breaker.record(success: nil, try permit(&breaker, at(1)), at: at(1)) == nil) }
        #expect(breaker.state == .closed)
        try fail(&breaker, times: 1, from: 2)
        #expect(breaker.state == .open)
    }
}
