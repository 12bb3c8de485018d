internal import CoreMetrics
internal import Logging
internal import Redis

/// How a lane reads its streams.
extension Lane {
    func turn(_ jobs: inout DiscardingTaskGroup) async throws {
        guard isConnected else {
            hasGroups = false
            return try await LaneActor.sleep(for: .milliseconds(50))
        }
        if !hasGroups {
            try await createGroups()
            // After a long loss all leases are over: each worker first says what it still has, then looks at others'.
            try await beat()
            claimAt = max(claimAt, .now + .seconds(2))
            for kind in configuration.kinds {
                turnedAt = .now
                try await recover(kind, &jobs)
            }
            isBusy = true
        }
        if measuredAt.map({ .now - $0 > .seconds(5) }) ?? true {
            measuredAt = .now
            let lengths = await writing.pipeline(
                Kind.allCases.map { ["XLEN", .text(keys.jobs($0))] }
                    + [
                        ["ZCARD", .text(keys.delayed)], ["XLEN", .text(keys.dead)], ["SCARD", .text(keys.unsettled)],
                    ])
            for (kind, reply) in zip(Kind.allCases, lengths) { metrics.lengths[kind]?.record(reply.int ?? 0) }
            for (gauge, reply) in zip([metrics.delayed, metrics.dead, metrics.unsettled], lengths.suffix(3)) {
                gauge.record(reply.int ?? 0)
            }
        }
        let kinds = configuration.kinds.filter { kind in
            !paused.contains(kind) && !session.isStopped(trading: kind.isTrading)
                && (unreadable[kind].map { $0 < .now } ?? true)
                && room(kind) > 0
        }
        if kinds.isEmpty { return try await LaneActor.sleep(for: .milliseconds(room(.cancelOrder) > 0 ? 20 : 2)) }
        try await claim(kinds, &jobs)
        if room(.refreshCache) < kinds.count {
            isBusy = false
            for kind in kinds where room(kind) > 0 {
                if try start(await reading.pipeline([read([kind], ">", count: 1)])[0], kind, &jobs) > 0 {
                    isBusy = true
                }
            }
            if isBusy { return }
            // With something in hand its slot may be free again any moment.
            let isAlone = inHandCount == 0 && !kinds.contains { unreadable[$0] != nil }
            if !isAlone { return try await LaneActor.sleep(for: .milliseconds(2)) }
        }
        if isBusy || kinds.contains(where: { unreadable[$0] != nil }) {
            let replies = await reading.pipeline(kinds.map { read([$0], ">", count: share($0, of: kinds)) })
            isBusy = false
            for (kind, reply) in zip(kinds, replies) where try start(reply, kind, &jobs) > 0 { isBusy = true }
        } else {
            // Nothing waits: the first job of any stream ends this read.
            let count = max(1, room(.refreshCache) / 8)
            // Longer than the read that blocks for a second.
            let reply = await reading.pipeline([read(kinds, ">", count: count, block: 1000)], timeout: .seconds(6))[0]
            isBusy = try start(reply, nil, &jobs) >= count
        }
    }

    /// Starts what is pending for this consumer and not in hand: it was delivered over a connection that broke before it
    /// arrived. Reading it again would count as one more delivery, of all that is in hand too.
    private func recover(_ kind: Kind, _ jobs: inout DiscardingTaskGroup) async throws {
        let head: [RedisArgument] = [.text(keys.jobs(kind)), .text(Keys.group)]
        var from: String? = "-"
        while let first = from {
            let page = await reading.pipeline([
                RedisCommand(["XPENDING"] + head + [.text(first), "+", 100, .text(consumer)])
            ])[0]
            // An error says here what it says of a read.
            guard page.error == nil else { return _ = try start(page, kind, &jobs) }
            let entries = (page.array ?? []).compactMap { entry in
                entry.array.flatMap { parts in parts.count == 4 ? parts[0].text.map { ($0, parts[3].int ?? 1) } : nil }
            }
            let lost = entries.filter { inHand[kind]?[$0.0] == nil }
            let replies = await reading.pipeline(
                lost.map { id, deliveries in
                    RedisCommand(["XCLAIM"] + head + [.text(consumer), 0, .text(id), "RETRYCOUNT", .int(deliveries)])
                })
            for (reply, (_, deliveries)) in zip(replies, lost) {
                guard let parts = try reply.get().array?.first?.array else { continue }
                _ = start(.array(parts + [.integer(Int64(deliveries))]), kind, since: .now - .seconds(2), &jobs)
            }
            from = entries.last.map { "(\($0.0)" }
        }
    }

    /// Slots that jobs of the kind may fill now: an eighth of all, at least one where there are three, is kept for
    /// cancels, and another for cancels and orders.
    private func room(_ kind: Kind) -> Int {
        let all = min(configuration.concurrency, Self.mostUnwritten)
        let kept = kind == .cancelOrder ? 0 : kind == .submitOrder ? 1 : 2
        return freeSlots - kept * (all < 3 ? 0 : max(1, all / 8))
    }

    /// How many jobs of the kind to read in one go, so that all kinds together stay within the slots: tickers the bulk.
    private func share(_ kind: Kind, of kinds: [Kind]) -> Int {
        let room = room(.refreshCache)
        let share = max(1, room / 8)
        return kind == .fetchTicker ? max(1, room - share * (kinds.count - 1)) : share
    }

    func read(_ kinds: [Kind], _ from: String, count: Int, block: Int? = nil) -> RedisCommand {
        let head: [RedisArgument] = ["XREADGROUP", "GROUP", .text(Keys.group), .text(consumer), "COUNT", .int(count)]
        let wait: [RedisArgument] = block.map { ["BLOCK", .int($0)] } ?? []
        return RedisCommand(head + wait + ["STREAMS"]) + kinds.map(keys.jobs) + kinds.map { _ in from }
    }

    /// Starts the jobs of a reply; `kind` is the one whose stream a fault concerns, nil: nobody knows.
    /// - Returns: how many there were of one kind at most.
    private func start(_ reply: RedisValue, _ kind: Kind?, _ jobs: inout DiscardingTaskGroup) throws(RedisError) -> Int
    {
        if reply.error?.code == .server("NOGROUP") || reply.error?.code == .server("UNBLOCKED") {
            hasGroups = false
            return 0
        }
        if reply.error?.code == .server("WRONGTYPE") {
            // Of several streams: which, the next reads will tell.
            guard let kind else { return .max }
            if unreadable[kind] == nil { log.error("not a stream", metadata: ["key": "\(keys.jobs(kind))"]) }
            unreadable[kind] = .now + .seconds(2)
            return 0
        }
        let since = ContinuousClock.now - .seconds(2)
        let streams = try reply.get().array ?? []
        if let kind { unreadable[kind] = nil }
        var most = 0
        for stream in streams {
            guard let parts = stream.array, parts.count == 2, let key = parts[0].text,
                let kind = Kind.allCases.first(where: { keys.jobs($0) == key })
            else { throw RedisError(.malformedReply, "XREADGROUP: a stream and its entries were expected") }
            let entries = parts[1].array ?? []
            for entry in entries { _ = start(entry, kind, since: since, &jobs) }
            most = max(most, entries.count)
        }
        return most
    }

    /// Starts the job of `[entry id, fields, deliveries?]`, unless it runs here already; `since`: when its lease began.
    private func start(
        _ entry: RedisValue, _ kind: Kind, since: ContinuousClock.Instant, _ jobs: inout DiscardingTaskGroup
    ) -> Bool {
        // Without fields it was deleted while it was pending.
        guard let parts = entry.array, parts.count >= 2, let id = parts[0].text, let fields = parts[1].array,
            inHand[kind]?[id] == nil
        else { return false }
        inHand[kind, default: [:]][id] = since
        let deliveries = parts.count > 2 ? parts[2].int ?? 1 : 1
        start(Job(exchange: exchange, kind: kind, entryId: id, fields: fields, deliveries: deliveries), &jobs)
        return true
    }

    /// Takes over deliveries that their workers have not kept alive for a lease, every two seconds or so.
    private func claim(_ kinds: [Kind], _ jobs: inout DiscardingTaskGroup) async throws {
        guard claimAt <= .now else { return }
        claimAt = .now + .seconds(2) * Double.random(in: 0.75...1.25)
        for kind in kinds where unreadable[kind] == nil {
            // A slow Redis is no loop that stands still.
            turnedAt = .now
            // A page a call; what others keep alive is passed over. The cursor goes on where the last scan stopped.
            for _ in 0..<20 where room(kind) > 0 {
                let since = ContinuousClock.now
                let reply = try await FunctionLibrary.call(
                    "fleet_claim", [keys.jobs(kind)],
                    [
                        .text(Keys.group), .text(consumer), .int(Int(Lease.length / .milliseconds(1))),
                        .text(claimCursors[kind] ?? "0-0"), .int(min(room(kind), 100)),
                    ], on: writing)
                guard let page = reply.array, page.count == 2, let cursor = page[0].text else { break }
                for entry in page[1].array ?? [] where start(entry, kind, since: since, &jobs) {
                    metrics.moves[.claimed]?.increment()
                }
                claimCursors[kind] = cursor
                if cursor == "0-0" { break }
            }
        }
    }

    private func createGroups() async throws(RedisError) {
        try await FunctionLibrary.load(into: writing)
        try await lookAround()
        for kind in configuration.kinds {
            turnedAt = .now
            do throws(RedisError) {
                _ = try await writing.send([
                    "XGROUP", "CREATE", .text(keys.jobs(kind)), .text(Keys.group), 0, "MKSTREAM",
                ])
            } catch {
                if error.code == .server("OOM") {
                    // A full Redis says so even where the group is there, and can only be emptied by reading.
                    _ = try await writing.send(["XPENDING", .text(keys.jobs(kind)), .text(Keys.group)])
                } else if error.code != .server("BUSYGROUP"), error.code != .server("WRONGTYPE") {
                    throw error
                }
            }
        }
        // Redis 7.0 knows a consumer only once it has got a job; who looks at the fleet wants to see all of it.
        _ = await writing.pipeline(
            configuration.kinds.map {
                ["XGROUP", "CREATECONSUMER", .text(keys.jobs($0)), .text(Keys.group), .text(consumer)]
            })
        hasGroups = true
    }
}
