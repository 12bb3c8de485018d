#!lua name=fleet
-- Every change of a job's or an order's state: one atomic call each, on keys of one slot, by Redis' own clock.
-- Times are unix milliseconds, waits milliseconds, lives of keys seconds. Arguments of a function are only ever added at
-- the end, so that workers of two versions can share one library: the newest.
-- A full Redis refuses only what brings new work (what is not allow-oom): all else an order under way, a cancel or
-- the emptying of Redis may need.
--
-- A job is in one place: waiting or running (an entry of its stream), delayed (a member of the sorted set), or dead (an
-- entry of the dead stream). What must outlast a move travels in fields of the entry whose names begin with fleet_:
--   fleet_attempt      executions begun, this one included       fleet_enqueued_ms  when it first came
--   fleet_history      what went wrong before, a line each
-- The marker of an id says where the job is that came in by fleet_enqueue: '<stream> <entry id>', or 'delayed <id of the
-- member>'.

local MARKER_TTL = 604800
local RETRIES_PER_SECOND, RETRIES_AT_ONCE = 20, 200

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A time to come is kept with the time at which it was written: a clock that is set back must not make it last longer.
local function stamped(ends, time) return string.format('%.3f %.3f', ends, time) end

local function ending(key, time)
  local value = redis.call('GET', key)
  local ends, written = string.match(value or '', '^(%S+) ?(%S*)$')
  -- What says no time lasts as long as its key: a person's, or an older library's.
  if not tonumber(ends) then return value and time + redis.call('PTTL', key) or 0 end
  local ahead = (tonumber(written) or time) - time
  if ahead <= 0 then return tonumber(ends) end
  redis.call('SET', key, stamped(ends - ahead, time), 'PX', math.max(1, math.ceil(ends - ahead - time)) + 2000)
  return ends - ahead
end

-- The fence: whether the consumer still owns the delivery. A stream or group that is gone is owned by nobody.
local function owns(stream, group, consumer, entry)
  return #redis.pcall('XPENDING', stream, group, entry, entry, 1, consumer) > 0
end

local function take(stream, group, entry)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end

-- A job's own fields, without its id and ours, with `more` behind them.
local function with(fields, more)
  local list = {}
  for i = 1, #fields, 2 do
    if fields[i] ~= 'id' and string.sub(fields[i], 1, 6) ~= 'fleet_' then
      list[#list + 1] = fields[i]
      list[#list + 1] = fields[i + 1]
    end
  end
  for i = 1, #more do list[#list + 1] = more[i] end
  return list
end

local function field(fields, name)
  for i = 1, #fields, 2 do if fields[i] == name then return fields[i + 1] end end
end

-- What went wrong so far and now; of a long story the end.
local function history(fields, line)
  local told = field(fields, 'fleet_history')
  if line == '' then return told or '' end
  return string.sub((told and told .. '\n' or '') .. line, -4000)
end

-- Stores a result (for 0 seconds: not) and pushes it to the reply key, if there is one.
local function answer(result, json, ttl, reply, reply_ttl)
  if tonumber(ttl) > 0 then redis.call('SET', result, json, 'EX', ttl) end
  -- A reply key of another type is its owner's fault and must not keep the job.
  if reply and type(redis.pcall('RPUSH', reply, json)) == 'number' then redis.call('EXPIRE', reply, reply_ttl) end
end

-- Moves a marker that says the job was at `from`, without `to` removes it. Another's of the same id stays.
local function mark(marker, from, to)
  if redis.pcall('GET', marker) ~= from then return end
  if to then redis.call('SET', marker, to, 'EX', MARKER_TTL) else redis.call('DEL', marker) end
end

-- Where the job of a marker is: 'queued', 'running' (to who names the group), 'delayed', or nowhere.
local function place(marker, group)
  local found = redis.call('GET', marker)
  if not found or string.find(found, '^delayed') then return found and 'delayed' end
  local stream, entry = string.match(found, '^(.+) (.+)$')
  if #redis.pcall('XPENDING', stream, group, entry, entry, 1) > 0 then return 'running' end
  return #redis.pcall('XRANGE', stream, entry, entry) > 0 and 'queued'
end

-- KEYS: none  ARGV: none  Returns: the version of this library
redis.register_function{function_name = 'fleet_version', flags = {'no-writes'},
  callback = function() return 12 end}

-- A nonce greater than all before it, for one API key: the time in µs, or the last nonce + 1.
-- KEYS: 1 nonce key  ARGV: none  Returns: the nonce as text
redis.register_function{function_name = 'fleet_nonce', flags = {'allow-oom'}, callback = function(keys)
  local time = redis.call('TIME')
  local now = string.format('%d%06d', time[1], time[2])
  local last = redis.call('GET', keys[1])
  -- Sixteen digits each until the year 2286, so that text compares as numbers do.
  if last and last >= now then now = string.format('%.0f', tonumber(last) + 1) end
  redis.call('SET', keys[1], now)
  return now
end}

-- caller → stream, or → delayed. An id that is queued, running, delayed, or finished with its result still there is
-- refused; so is a job when the stream is full. Nothing is ever trimmed.
-- KEYS: 1 stream  2 delayed  3 marker of the id  4 result of the id
-- ARGV: 1 group  2 kind  3 job id, '' for the entry's  4 most entries of the stream  5 due at, 0 now  6 or wait from now
--       7 repeat every, 0 once (then the id names the schedule, and each job gets its entry's)  8… fields, without id
-- Returns: {'queued', entry id} · {'delayed', id} · {'duplicate', 'queued'|'running'|'delayed'|'finished'}
-- Errors: FULL, ID (a delayed job needs one), FIELDS (names and values come in pairs, at most a thousand), DUE (4 to 7
--   are no numbers, or no times)
redis.register_function('fleet_enqueue', function(keys, argv)
  local id, numbers = argv[3], {}
  for i = 4, 7 do
    numbers[i] = tonumber(argv[i])
    -- A time of more is none in milliseconds.
    if not (numbers[i] and numbers[i] >= 0 and numbers[i] < 1e13) then
      return redis.error_reply('DUE argument ' .. i .. ": '" .. argv[i] .. "'; expected a whole number, times in milliseconds")
    end
  end
  local due, every = numbers[5], numbers[7]
  if numbers[6] > 0 then due = now() + numbers[6] end
  if id ~= '' then
    if redis.call('EXISTS', keys[4]) == 1 then return {'duplicate', 'finished'} end
    local found = place(keys[3], argv[1])
    if found then return {'duplicate', found} end
  elseif due > 0 or every > 0 then
    return redis.error_reply('ID a delayed job needs an id')
  end
  -- What no stream would take must not wait in the set of delayed jobs for ever.
  if #argv % 2 == 0 or #argv > 2007 then
    return redis.error_reply('FIELDS names and values are expected in pairs, at most 1000')
  end
  local fields = {}
  for i = 8, #argv do fields[#fields + 1] = argv[i] end
  -- An entry cannot be without fields; an empty id is none.
  if #fields == 0 then fields = {'id', ''} end
  if every == 0 and id ~= '' then fields = with(fields, {'id', id}) end
  if due > 0 or every > 0 then
    due = math.max(due, now())
    redis.call('ZADD', keys[2], due, cjson.encode({argv[2], id, every, fields}))
    redis.call('SET', keys[3], 'delayed ' .. id)
    if every == 0 then redis.call('EXPIRE', keys[3], math.ceil((due - now()) / 1000) + MARKER_TTL) end
    return {'delayed', id}
  end
  if redis.call('XLEN', keys[1]) >= numbers[4] then
    return redis.error_reply('FULL ' .. keys[1] .. ' has ' .. argv[4] .. ' jobs, the most it may')
  end
  local entry = redis.call('XADD', keys[1], '*', unpack(fields))
  if id ~= '' then redis.call('SET', keys[3], keys[1] .. ' ' .. entry, 'EX', MARKER_TTL) end
  return {'queued', entry}
end)

-- stream → done: takes a delivered job off its stream, its result written.
-- KEYS: 1 stream  2 result  3 marker  4 reply key (optional)
-- ARGV: 1 group  2 consumer  3 entry id  4 result JSON  5 seconds to store it, 0 not at all  6 seconds the reply lives
-- Returns: 1, or 0 when the consumer does not own the delivery any more: nothing was done then
redis.register_function{function_name = 'fleet_finish', flags = {'allow-oom'}, callback = function(keys, argv)
  if not owns(keys[1], argv[1], argv[2], argv[3]) then return 0 end
  take(keys[1], argv[1], argv[3])
  answer(keys[2], argv[4], argv[5], keys[4], argv[6])
  mark(keys[3], keys[1] .. ' ' .. argv[3])
  return 1
end}

-- Removes the markers of jobs that were taken off their streams.
-- KEYS: 1… markers  ARGV: 1… '<stream> <entry id>' of each  Returns: 1
redis.register_function{function_name = 'fleet_unmark', flags = {'allow-oom'}, callback = function(keys, argv)
  for i = 1, #keys do mark(keys[i], argv[i]) end
  return 1
end}

-- stream → dead: gives a job up, with its result, its fields, why, what went wrong before, and who had it last.
-- KEYS: 1 stream  2 result  3 marker  4 dead  5 reply key (optional)
-- ARGV: 1…6 as fleet_finish  7 kind  8 job id  9 reason  10 line for the history, '' for none  11 when it first came
--       12 executions begun
-- Returns: 1, or 0 when the consumer does not own the delivery any more: nothing was done then
redis.register_function{function_name = 'fleet_bury', flags = {'allow-oom'}, callback = function(keys, argv)
  if not owns(keys[1], argv[1], argv[2], argv[3]) then return 0 end
  local entries = redis.call('XRANGE', keys[1], argv[3], argv[3])
  local fields = entries[1] and entries[1][2] or {}
  redis.call('XADD', keys[4], '*', unpack(with(fields, {
    'id', argv[8], 'fleet_kind', argv[7], 'fleet_reason', argv[9], 'fleet_worker', argv[2],
    'fleet_history', history(fields, argv[10]), 'fleet_enqueued_ms', argv[11], 'fleet_attempt', argv[12]})))
  take(keys[1], argv[1], argv[3])
  answer(keys[2], argv[4], argv[5], keys[5], argv[6])
  mark(keys[3], keys[1] .. ' ' .. argv[3])
  return 1
end}

-- stream → delayed (→ stream when there is nothing to wait for): a retry with the next attempt's number, or a job put
-- aside with the same. Retries of one exchange are spread to RETRIES_PER_SECOND beyond RETRIES_AT_ONCE, by all workers
-- together, so that an outage does not multiply traffic: those of tickers and refreshes by one key 4, those of orders and
-- cancels, which do not wait for these, by another.
-- KEYS: 1 stream  2 delayed  3 marker  4 when the next retry may come
-- ARGV: 1 group  2 consumer  3 entry id  4 kind  5 job id  6 wait  7 executions begun when it comes again
--       8 when it first came  9 line for the history, '' for none  10 '1' a retry, '0' put aside
-- Returns: when it is due, or 0 when the consumer does not own the delivery any more: nothing was done then
redis.register_function{function_name = 'fleet_retry', flags = {'allow-oom'}, callback = function(keys, argv)
  if not owns(keys[1], argv[1], argv[2], argv[3]) then return 0 end
  local entries = redis.call('XRANGE', keys[1], argv[3], argv[3])
  if not entries[1] then
    -- Deleted by somebody while it ran: there is nothing to do again.
    take(keys[1], argv[1], argv[3])
    return 0
  end
  local fields = with(entries[1][2], {'id', argv[5], 'fleet_enqueued_ms', argv[8], 'fleet_attempt', argv[7]})
  local story = history(entries[1][2], argv[9])
  if story ~= '' then fields[#fields + 1] = 'fleet_history'; fields[#fields + 1] = story end
  local from, time = keys[1] .. ' ' .. argv[3], now()
  local due = time + tonumber(argv[6])
  if argv[10] == '1' then
    local interval = 1000 / RETRIES_PER_SECOND
    local next = math.max(ending(keys[4], time), time)
    due = math.max(due, math.floor(next - RETRIES_AT_ONCE * interval))
    redis.call('SET', keys[4], stamped(next + interval, time), 'PX', math.ceil(next + interval - time) + 1000)
  end
  -- A function that fails keeps what it has done: the job is taken off its stream only when it stands elsewhere.
  if due <= time then
    mark(keys[3], from, keys[1] .. ' ' .. redis.call('XADD', keys[1], '*', unpack(fields)))
  else
    redis.call('ZADD', keys[2], due, cjson.encode({argv[4], argv[3], 0, fields}))
    mark(keys[3], from, 'delayed ' .. argv[3])
  end
  take(keys[1], argv[1], argv[3])
  return due
end}

-- delayed → stream: what is due, oldest first. A repeated one stays, due again at the next of its times still to come, and
-- adds no job while its last one is there, wherever it was moved to: those of a lane that is stopped would pile up. After
-- an hour it does, as somebody may have taken that one's delivery away.
-- KEYS: 1 delayed  2… stream of each kind  ARGV: 1 most jobs  2 what a marker's key begins with  3… the kinds
-- Returns: {how many were due, wait until the next is due or -1}
redis.register_function{function_name = 'fleet_promote', flags = {'allow-oom'}, callback = function(keys, argv)
  local streams, time, moved = {}, now(), 0
  for i = 2, #keys do streams[argv[i + 1]] = keys[i] end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', time, 'LIMIT', 0, argv[1])) do
    local kind, id, every, fields, last, entry
    local isAdded = pcall(function()
      kind, id, every, fields, last = unpack(cjson.decode(member))
      assert(type(id) == 'string' and type(every) == 'number' and type(fields) == 'table')
      local isLate = not last or time - string.match(last, '^%d+') >= 3600000
      entry = not isLate and place(argv[2] .. last, '') and last or redis.call('XADD', streams[kind], '*', unpack(fields))
    end)
    if not isAdded then
      -- No such kind here, its stream is another thing, no job: left for later, and not in the way of the others.
      redis.call('ZADD', keys[1], time + 1000, member)
    elseif every > 0 then
      local due = tonumber(redis.call('ZSCORE', keys[1], member))
      redis.call('ZREM', keys[1], member)
      if entry ~= last then
        if last then redis.call('DEL', argv[2] .. last) end
        redis.call('SET', argv[2] .. entry, streams[kind] .. ' ' .. entry, 'EX', MARKER_TTL)
      end
      redis.call('ZADD', keys[1], due + every * (math.floor((time - due) / every) + 1),
        cjson.encode({kind, id, every, fields, entry}))
      moved = moved + 1
    else
      redis.call('ZREM', keys[1], member)
      mark(argv[2] .. (field(fields, 'id') or id), 'delayed ' .. id, streams[kind] .. ' ' .. entry)
      moved = moved + 1
    end
  end
  local next = redis.call('ZRANGE', keys[1], 0, 0, 'WITHSCORES')[2]
  return {moved, next and math.max(0, tonumber(next) - now()) or -1}
end}

-- delayed → nothing: takes back what fleet_enqueue delayed, a schedule too.
-- KEYS: 1 delayed  2 marker  ARGV: 1 job or schedule id  Returns: how many were removed
redis.register_function{function_name = 'fleet_unschedule', flags = {'allow-oom'}, callback = function(keys, argv)
  local removed = 0
  for _, member in ipairs(redis.call('ZRANGE', keys[1], 0, 99999)) do
    -- What is no job of ours, somebody else put there.
    local isJob, job = pcall(cjson.decode, member)
    if isJob and type(job) == 'table' and job[2] == argv[1] then
      removed = removed + redis.call('ZREM', keys[1], member)
      -- The marker of its last job.
      if job[5] then redis.call('DEL', string.sub(keys[2], 1, -#argv[1] - 1) .. job[5]) end
    end
  end
  mark(keys[2], 'delayed ' .. argv[1])
  return removed
end}

-- dead → stream: a job once more from its first attempt, with its history; its old result is taken away. An order that
-- failed, so was certainly not executed, may be sent; one that may exist only where its journal still says so.
-- KEYS: 1 dead  2 stream  3 marker  4 result  5 journal (optional)  ARGV: 1 entry id in the dead stream
-- Returns: the new entry's id, or '' when there is no such dead job
-- Errors: DUPLICATE (its id was enqueued again meanwhile and is not done, or was done well; or the order may exist)
redis.register_function('fleet_replay', function(keys, argv)
  local found = redis.call('XRANGE', keys[1], argv[1], argv[1])[1]
  if not found then return '' end
  if place(keys[3], '') then return redis.error_reply('DUPLICATE a job of this id is queued, running or delayed') end
  local isRead, result = pcall(cjson.decode, redis.pcall('GET', keys[4]))
  if isRead and type(result) == 'table' and result.status == 'ok' then
    return redis.error_reply('DUPLICATE a job of this id has ended well since')
  end
  local fields, state = found[2], keys[5] and redis.call('HGET', keys[5], 'state')
  local reason = field(fields, 'fleet_reason') or ''
  local mayExist = field(fields, 'fleet_kind') == 'submit_order' and ({unknown = 1, poison = 1, redis = 1})[reason]
  if mayExist and not state then
    return redis.error_reply('DUPLICATE the order may exist, and its journal, which would say so, is gone')
  end
  local entry = redis.call('XADD', keys[2], '*', unpack(with(fields, {
    'id', field(fields, 'id') or '', 'fleet_enqueued_ms', field(fields, 'fleet_enqueued_ms') or '',
    'fleet_history', history(fields, reason .. '; replayed at ' .. now())})))
  redis.call('XDEL', keys[1], argv[1])
  redis.call('DEL', keys[4])
  if state == 'failed' then
    redis.call('HSET', keys[5], 'state', 'released', 'sends', 0)
    redis.call('HDEL', keys[5], 'outcome')
  end
  redis.call('SET', keys[3], keys[2] .. ' ' .. entry, 'EX', MARKER_TTL)
  return entry
end)

-- silent worker → me: deliveries that nobody has kept alive for a lease, from the cursor on.
-- KEYS: 1 stream  ARGV: 1 group  2 consumer  3 lease  4 cursor, at first '0-0'  5 most jobs
-- Returns: {next cursor, {{entry id, fields, deliveries with this one} …}}
redis.register_function{function_name = 'fleet_claim', flags = {'allow-oom'}, callback = function(keys, argv)
  local reply = redis.call('XAUTOCLAIM', keys[1], argv[1], argv[2], argv[3], argv[4], 'COUNT', argv[5])
  for _, entry in ipairs(reply[2]) do
    entry[3] = redis.call('XPENDING', keys[1], argv[1], entry[1], entry[1], 1)[1][4]
  end
  return {reply[1], reply[2]}
end}

-- The heartbeat: renews the lease of the deliveries that are still the consumer's.
-- KEYS: 1 stream  ARGV: 1 group  2 consumer  3… entry ids  Returns: how many are another's by now
redis.register_function{function_name = 'fleet_beat', flags = {'allow-oom'}, callback = function(keys, argv)
  local lost = 0
  for i = 3, #argv do
    if owns(keys[1], argv[1], argv[2], argv[i]) then
      redis.call('XCLAIM', keys[1], argv[1], argv[2], 0, argv[i], 'JUSTID')
    else
      lost = lost + 1
    end
  end
  return lost
end}

-- gone consumer → nothing: never one with pending jobs, which would be thrown away with it.
-- KEYS: 1 stream  ARGV: 1 group  2 one consumer, or '' for all that have been silent for 3 milliseconds
-- Returns: how many were removed
redis.register_function{function_name = 'fleet_retire', flags = {'allow-oom'}, callback = function(keys, argv)
  local removed = 0
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', keys[1], argv[1])) do
    local isMeant = argv[2] == info[2] or argv[2] == '' and info[6] >= tonumber(argv[3])
    if isMeant and info[4] == 0 then
      redis.call('XGROUP', 'DELCONSUMER', keys[1], argv[1], info[2])
      removed = removed + 1
    end
  end
  return removed
end}

-- An order's journal is a hash. state: sending → accepted, rejected, failed, expired or unknown, each with the outcome;
-- released (certainly not executed, may be sent again) and canceled (must not be sent) come before a send.
-- send_until_ms: when the exchange can no longer be about to accept the last send. absent: how often it was not found
-- since. hidden_ms: since when no question has found it, one soon after the other or all after send_until_ms; looked_ms:
-- the last one. sends: requests that may have been executed. tries: those too that were refused for their clock or nonce. Times
-- of each step end in _ms. A journal lives for as long as its order is open or unknown, and then for the given time.

-- The set of the journals of an exchange that are unknown.
local function unsettled(journal) return (string.gsub(journal, 'order:.*$', 'unsettled')) end

local function standing(j) return {j.state, j.outcome or '', j.owner or '', j.exchange_order_id or ''} end

-- {state, outcome JSON or '', owner, exchange order id or '', wait until the exchange cannot be about to accept it (0:
-- over), since the last send, '1' when a cancel wants it gone else '', sends so far, absences so far, the last request's
-- time by the exchange's clock or 0, since when it could not be asked about or 0, the first request's time or 0, symbol or
-- '', since when the exchange is known to have it or 0, what was sent or '', tries so far, since when it is hidden or 0}
local function looked(j)
  local list, time = standing(j), now()
  list[5] = math.max(0, tonumber(j.send_until_ms or 0) - time)
  list[6] = time - tonumber(j.sent_ms or j.begun_ms or time)
  list[7] = j.cancel_ms and '1' or ''
  list[8] = tonumber(j.sends or 0)
  list[9] = tonumber(j.absent or 0)
  list[10] = tonumber(j.stamp_ms or 0)
  list[11] = j.unasked_ms and time - tonumber(j.unasked_ms) or 0
  list[12] = tonumber(j.first_stamp_ms or 0)
  list[13] = j.symbol or ''
  local known = j.acknowledged_ms or j.state == 'accepted' and j.ended_ms
  list[14] = known and time - known or 0
  list[15] = j.request or ''
  list[16] = tonumber(j.tries or 0)
  list[17] = j.hidden_ms and time - tonumber(j.hidden_ms) or 0
  return list
end

local function journal(key)
  local list, j = redis.call('HGETALL', key), {}
  for i = 1, #list, 2 do j[list[i]] = list[i + 1] end
  if list[1] and not j.state then error({err = 'WRONGTYPE ' .. key .. ' has no state: it is no journal'}) end
  return j
end

-- What stands in the journal, for looking.
-- KEYS: 1 journal
-- Returns: {} or what `looked` makes of it
redis.register_function{function_name = 'fleet_journal_read', flags = {'no-writes'}, callback = function(keys)
  local j = journal(keys[1])
  return j.state and looked(j) or {}
end}

-- Opens the journal for a send: when there is none, when the last send was released, when it is the owner's own (the
-- answer to its first call may have been lost, or the exchange refused the clock) and not noted uncertain, or when the
-- order was found absent twice after the exchange could no longer accept it, and all the time for as long as it may hide
-- one that has changed: one that nobody asked about for long may have been shown meanwhile. A wanted cancel or a pause
-- comes first.
-- KEYS: 1 journal  2 paused kinds
-- ARGV: 1 owner: consumer and entry id  2 how long the exchange may still accept it  3 seconds to keep the journal when it is canceled  4 kind
--       5 the request's time by the exchange's clock, 0: there will be none  6 the order's symbol  7 the rest of it
--       8 how long an order may be hidden  9 sends and 10 tries when it was found absent, '' where nobody asked: who did not
--       ask about the last request must not take it for absent
-- Returns: {'begun'} · {'paused'} · {state, outcome JSON or '', …} of what stands
redis.register_function('fleet_journal_begin', function(keys, argv)
  local j, time = journal(keys[1]), now()
  local isFree = not j.state or j.state == 'released'
  local isMine = j.state == 'sending' and j.owner == argv[1] and not j.exchange_order_id and not j.uncertain_ms
  local isAbsent = j.state == 'sending' and not j.exchange_order_id and tonumber(j.absent or 0) >= 2
    and time >= tonumber(j.send_until_ms) and (not j.symbol or not argv[6] or j.symbol == argv[6])
    and (not argv[7] or (j.request or '') == '' or j.request == argv[7])
    and time - tonumber(j.hidden_ms or time) >= tonumber(argv[8] or 0)
    and (not argv[9] or argv[9] == (j.sends or '0') and argv[10] == (j.tries or '0'))
  if j.outcome or not (isFree or isMine or isAbsent) then return standing(j) end
  if j.cancel_ms then
    redis.call('HSET', keys[1], 'state', 'canceled')
    redis.call('EXPIRE', keys[1], argv[3])
    return {'canceled', '', '', ''}
  end
  if redis.call('SISMEMBER', keys[2], argv[4]) == 1 then return {'paused'} end
  redis.call('HSETNX', keys[1], 'begun_ms', time)
  redis.call('HINCRBY', keys[1], 'tries', 1)
  if argv[5] and argv[5] ~= '0' then redis.call('HSETNX', keys[1], 'first_stamp_ms', argv[5]) end
  redis.call('HSET', keys[1], 'state', 'sending', 'owner', argv[1], 'sent_ms', time,
    'send_until_ms', time + tonumber(argv[2]), 'absent', 0, 'stamp_ms', argv[5] or 0)
  if argv[6] then redis.call('HSET', keys[1], 'symbol', argv[6], 'request', argv[7] or '') end
  redis.call('HDEL', keys[1], 'uncertain_ms', 'unasked_ms', 'hidden_ms', 'looked_ms')
  -- What the exchange refused for its clock or nonce was no send, and where there is no request none follows.
  if not isMine and argv[5] ~= '0' then redis.call('HINCRBY', keys[1], 'sends', 1) end
  redis.call('PERSIST', keys[1])
  return {'begun'}
end)

-- Notes what was learnt of a send under way: 'released' it was certainly not executed, 'acknowledged' the exchange has
-- it under an id, 'uncertain' nobody knows, 'absent' a question did not find it, which counts after send_until_ms,
-- 'unasked' a question had no answer. Absences less than a second apart count as one.
-- KEYS: 1 journal  ARGV: 1 what  2 owner ('absent' and 'unasked' are anybody's)  3 exchange order id of 'acknowledged'
--       4 sends and 5 tries when 'absent' was asked: that an earlier request was not shown says nothing of the last
--       6 '0' it does not count yet  7 how long an order may be hidden
-- Returns: 1, or 0 when it does not fit the journal: nothing was done then
redis.register_function{function_name = 'fleet_journal_note', flags = {'allow-oom'}, callback = function(keys, argv)
  local j, time = journal(keys[1]), now()
  if j.state ~= 'sending' or j.outcome then return 0 end
  if argv[1] == 'absent' then
    if argv[4] and argv[4] ~= (j.sends or '0') or argv[5] and argv[5] ~= (j.tries or '0') then return 0 end
    local since, silence, ends = tonumber(j.hidden_ms), time - tonumber(j.looked_ms or 0), tonumber(j.send_until_ms)
    -- In a longer silence it may have been shown.
    if not since or silence > math.min(20000, tonumber(argv[7] or 20000)) and since < ends then
      since = argv[6] == '0' and math.min(time, ends - 1) or time
    end
    redis.call('HSET', keys[1], 'hidden_ms', since, 'looked_ms', time)
    redis.call('HDEL', keys[1], 'unasked_ms')
    if argv[6] == '0' or time < tonumber(j.send_until_ms) or time - tonumber(j.absent_ms or 0) < 1000 then return 0 end
    redis.call('HINCRBY', keys[1], 'absent', 1)
  elseif argv[1] == 'unasked' then
    return redis.call('HSETNX', keys[1], 'unasked_ms', time)
  elseif j.owner ~= argv[2] or argv[1] == 'released' and j.exchange_order_id then
    return 0
  elseif argv[1] == 'released' then
    redis.call('HSET', keys[1], 'state', 'released')
  elseif argv[1] == 'acknowledged' then
    -- What is known already stays: a cancel's answer, for one, may be without the id.
    if (j.exchange_order_id or '') == '' then redis.call('HSET', keys[1], 'exchange_order_id', argv[3]) end
    redis.call('HSETNX', keys[1], 'acknowledged_ms', time)
    return 1
  end
  redis.call('HSET', keys[1], argv[1] .. '_ms', time)
  return 1
end}

-- Prevents an order that was not sent, and one that was from being sent again.
-- KEYS: 1 journal  2 marker of the order's job  ARGV: 1 seconds to keep the journal of an order that is prevented, beyond
--   the time for which its job may be delayed  2 the symbol it is canceled by
-- Returns: what `looked` makes of what stands; its state is 'canceled' when the order is prevented
-- Errors: SYMBOL (the order was sent for another, which is named)
redis.register_function{function_name = 'fleet_journal_cancel', flags = {'allow-oom'}, callback = function(keys, argv)
  local j = journal(keys[1])
  if j.symbol and argv[2] and j.symbol ~= argv[2] then return redis.error_reply('SYMBOL ' .. j.symbol) end
  -- One that failed may be replayed.
  if not j.outcome or j.state == 'failed' then redis.call('HSET', keys[1], 'cancel_ms', now()) end
  if not j.outcome and (not j.state or j.state == 'released') then
    redis.call('HSET', keys[1], 'state', 'canceled')
    j.state = 'canceled'
    redis.call('EXPIRE', keys[1], math.max(argv[1], keys[2] and redis.call('TTL', keys[2]) or 0))
  end
  return looked(j)
end}

-- Writes how an order ended. What is known stays: only 'unknown' gives way to another outcome. That an order was not
-- placed, or that nobody knows, is only said of the send it was found for: not when another owner has begun one since.
-- KEYS: 1 journal  ARGV: 1 state  2 outcome JSON  3 seconds to keep it  4 '1': only when no send is under way, '2': only when canceled
--       5 owner of the send it is said of, '' for any
-- Returns: the outcome JSON that stands, the given one, or '' when it is not known yet: nothing was done then
redis.register_function{function_name = 'fleet_journal_end', flags = {'allow-oom'}, callback = function(keys, argv)
  local j = journal(keys[1])
  if j.outcome and (j.state ~= 'unknown' or argv[1] == 'unknown') then return j.outcome end
  if argv[4] == '1' and (j.state == 'sending' or j.state == 'unknown') then return j.outcome or '' end
  if argv[4] ~= '2' and j.state == 'canceled' and argv[1] ~= 'accepted' then return '' end
  if argv[4] == '2' and j.state ~= 'canceled' then return j.outcome or '' end
  local isOthers = (argv[5] or '') ~= '' and (j.owner or argv[5]) ~= argv[5]
  if isOthers and argv[1] ~= 'accepted' then return j.outcome or '' end
  redis.call('HSET', keys[1], 'state', argv[1], 'outcome', argv[2], 'ended_ms', now())
  -- What nobody knows must be there when somebody does.
  if argv[1] == 'unknown' then redis.call('PERSIST', keys[1]) else redis.call('EXPIRE', keys[1], argv[3]) end
  redis.call(argv[1] == 'unknown' and 'SADD' or 'SREM', unsettled(keys[1]), keys[1])
  return argv[2]
end}

-- A person's word on an order that ended unknown.
-- KEYS: 1 journal  2 result  ARGV: 1 state  2 outcome JSON  3 result JSON  4 seconds to keep both  5 the person's note
-- Returns: 'settled', or the state that stands ('' for none) when it is not unknown: nothing was done then
redis.register_function('fleet_journal_settle', function(keys, argv)
  local state = redis.call('HGET', keys[1], 'state')
  if state ~= 'unknown' then return state or '' end
  redis.call('HSET', keys[1], 'state', argv[1], 'outcome', argv[2], 'settled_ms', now(), 'note', argv[5])
  redis.call('EXPIRE', keys[1], argv[4])
  redis.call('SET', keys[2], argv[3], 'EX', argv[4])
  redis.call('SREM', unsettled(keys[1]), keys[1])
  return 'settled'
end)

-- Budgets: one key each with the time at which its bucket will be full again (GCRA), as ms with fractions. The gate is
-- there while the exchange wants nobody to call.

local function exact_now()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

local function fill(key, full_at, time)
  redis.call('SET', key, stamped(full_at, time), 'PX', math.ceil(full_at - time) + 1000)
end

-- Milliseconds until a gate opens. It stays for a while longer.
local function closed_for(gate, time) return math.max(0, ending(gate, time) - time) end

-- Takes what some calls of one kind cost, from all their budgets or none. A share below 1 leaves the rest of each bucket
-- to calls of more weight. A call dearer than its share goes when the bucket is full. Behind a gate that has just opened
-- one call goes at a time: when it is refused, the gate is closed before the others have called too.
-- KEYS: 1 gate  2… budgets, then more gates  ARGV: 1 most calls  2 share of the buckets, 0…1
--       3… of each budget: cost, burst, per second
-- Returns: {calls granted, wait until the next could be, 1 when that is a gate's}
redis.register_function{function_name = 'fleet_limit_take', flags = {'allow-oom'}, callback = function(keys, argv)
  local budgets, time, gates, closed = (#argv - 2) / 3, exact_now(), {}, 0
  for i = 1, #keys do
    if i == 1 or i > budgets + 1 then
      closed = math.max(closed, closed_for(keys[i], time))
      if redis.call('EXISTS', keys[i]) == 1 then gates[#gates + 1] = keys[i] end
    end
  end
  if closed > 0 then return {0, math.ceil(closed), 1} end
  local granted, wait, full = gates[1] and 1 or tonumber(argv[1]), 0, {}
  for i = 2, budgets + 1 do
    local cost, burst, rate = tonumber(argv[3 * i - 3]), tonumber(argv[3 * i - 2]), tonumber(argv[3 * i - 1])
    full[i] = math.max(ending(keys[i], time), time)
    local room = math.max(burst * argv[2], cost) - (full[i] - time) * rate / 1000
    granted = math.min(granted, math.max(0, math.floor(room / cost + 1e-6)))
    wait = math.max(wait, (cost - room) / rate * 1000)
  end
  if granted == 0 then return {0, math.ceil(wait), 0} end
  for i = 2, budgets + 1 do
    fill(keys[i], full[i] + granted * tonumber(argv[3 * i - 3]) / tonumber(argv[3 * i - 1]) * 1000, time)
  end
  for _, gate in ipairs(gates) do redis.call('SET', gate, stamped(time + 300, time), 'KEEPTTL') end
  return {granted, 0, 0}
end}

-- Gives back what calls that were not made had taken.
-- KEYS: 1… budgets  ARGV: 1 calls  2… of each budget: cost, per second  Returns: 1
redis.register_function{function_name = 'fleet_limit_give', flags = {'allow-oom'}, callback = function(keys, argv)
  local time = exact_now()
  for i = 1, #keys do
    local full = ending(keys[i], time) - argv[1] * argv[2 * i] / argv[2 * i + 1] * 1000
    if full > time then fill(keys[i], full, time) else redis.call('DEL', keys[i]) end
  end
  return 1
end}

-- Takes up what the exchange says was used since its window began, when that is more than we know of. Never less, and
-- nothing that may have been counted in the window before.
-- KEYS: 1 budget  ARGV: 1 used  2 length of the window, which begins at a multiple of it  3 per second
--       4 how long ago it may have been counted  5 '1': it rolls instead
-- Returns: 1 when it was more
redis.register_function{function_name = 'fleet_limit_correct', flags = {'allow-oom'}, callback = function(keys, argv)
  local time, window = exact_now(), tonumber(argv[2])
  local since = argv[5] == '1' and window or time % window
  if since < tonumber(argv[4] or 0) then return 0 end
  -- A bucket is refilled evenly, while what came in a burst stays in a window that rolls until its end: three times the
  -- wait keeps within a limit of which another program uses half.
  -- No window justifies a longer wait than itself, or three where it rolls, whatever the exchange says.
  local full = time + math.min(argv[1] / argv[3] * 1000 - since, window) * (argv[5] == '1' and 3 or 1)
  if full <= ending(keys[1], time) or full <= time then return 0 end
  fill(keys[1], full, time)
  return 1
end}

-- Closes gates, or keeps them closed for longer.
-- KEYS: 1… gates  ARGV: 1 milliseconds  Returns: how long the first is closed now
redis.register_function{function_name = 'fleet_limit_close', flags = {'allow-oom'}, callback = function(keys, argv)
  local time = exact_now()
  for _, gate in ipairs(keys) do
    if closed_for(gate, time) < tonumber(argv[1]) then
      redis.call('SET', gate, stamped(time + argv[1], time), 'PX', argv[1] + 2000)
    end
  end
  return math.ceil(closed_for(keys[1], time))
end}

-- Lets one worker fetch what several want; its own claim it may renew, or shorten. Who wants little waits while others
-- fetch: what is wanted meanwhile goes out together.
-- KEYS: 1… claims, with argument 4 then the key that is there for a moment while some are fetched
-- ARGV: 1 who  2 milliseconds for which a claim stands  3 most claims  4 milliseconds of that moment, at most a second
-- Returns: for each 1, or 0 when it is another's or one too many, or to be waited with
redis.register_function{function_name = 'fleet_fetch_claim', flags = {'allow-oom'}, callback = function(keys, argv)
  local granted, left, gathered = {}, tonumber(argv[3]), argv[4] and table.remove(keys)
  local life = gathered and redis.call('PTTL', gathered) or 0
  -- One without an end, or with a late one, a person has set.
  local isFetching = life > 0 and life <= 1000
  if isFetching then left = 0 end
  for i = 1, #keys do
    local owner = left > 0 and redis.call('GET', keys[i])
    granted[i] = left > 0 and (not owner or owner == argv[1]) and 1 or 0
    if granted[i] == 1 then redis.call('SET', keys[i], argv[1], 'PX', argv[2]) end
    left = left - granted[i]
  end
  if gathered and not isFetching and left < tonumber(argv[3]) then redis.call('SET', gathered, argv[1], 'PX', argv[4]) end
  return granted
end}

-- When the exchange made a ticker, else when it was received.
local function made_ms(value)
  return tonumber(string.match(value, '"exchange_ms":(%d+)') or string.match(value, '^%d+') or 0)
end

-- Keeps tickers that are newer than what is there. A value is '<received ms> <JSON>'.
-- KEYS: 1… cached tickers  ARGV: 1 seconds to keep them  2… received ms and JSON of each  Returns: how many were newer
redis.register_function('fleet_cache_put', function(keys, argv)
  local newer = 0
  for i = 1, #keys do
    local known, value = redis.call('GET', keys[i]), argv[2 * i] .. ' ' .. argv[2 * i + 1]
    if not known or made_ms(known) <= made_ms(value) then
      redis.call('SET', keys[i], value, 'EX', argv[1])
      newer = newer + 1
    end
  end
  return newer
end)
