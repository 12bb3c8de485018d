#!lua name=fleet
-- State changes of the fleet, each atomic, on keys of one slot. Times are Redis' own.

-- KEYS: none  ARGV: none  Returns: the version of this library
redis.register_function{function_name = 'fleet_version', flags = {'no-writes'},
  callback = function() return 1 end}

-- A nonce greater than all before it, for one API key: the time in µs, or the last nonce + 1.
-- KEYS: 1 nonce key  ARGV: none  Returns: the nonce as text
redis.register_function('fleet_nonce', function(keys)
  local time = redis.call('TIME')
  local now = string.format('%d%06d', time[1], time[2])
  local last = redis.call('GET', keys[1])
  -- Sixteen digits each until the year 2286, so that text compares as numbers do.
  if last and last >= now then now = string.format('%.0f', tonumber(last) + 1) end
  redis.call('SET', keys[1], now)
  return now
end)

-- Takes a delivered job off its stream, its result written. Nothing happens when that was done before.
-- KEYS: 1 stream  2 result key  3 reply key (optional)
-- ARGV: 1 group  2 entry id  3 result JSON  4 seconds to store it, 0 not at all  5 seconds the reply key lives
-- Returns: 1, or 0 when the entry was not pending any more
redis.register_function('fleet_finish', function(keys, argv)
  if redis.call('XACK', keys[1], argv[1], argv[2]) == 0 then return 0 end
  redis.call('XDEL', keys[1], argv[2])
  if tonumber(argv[4]) > 0 then redis.call('SET', keys[2], argv[3], 'EX', argv[4]) end
  -- A reply key of another type is its owner's fault and must not keep the job.
  if keys[3] and type(redis.pcall('RPUSH', keys[3], argv[3])) == 'number' then
    redis.call('EXPIRE', keys[3], argv[5])
  end
  return 1
end)

-- Puts a delivered job back at the end of its stream. Nothing happens when that was done before.
-- KEYS: 1 stream  ARGV: 1 group  2 entry id  3… fields and values
-- Returns: 1, or 0 when the entry was not pending any more
redis.register_function('fleet_hand_back', function(keys, argv)
  if redis.call('XACK', keys[1], argv[1], argv[2]) == 0 then return 0 end
  redis.call('XDEL', keys[1], argv[2])
  redis.call('XADD', keys[1], '*', unpack(argv, 3))
  return 1
end)

-- Opens an order's journal, or says what stands in it. The same owner gets 'begun' again while the state is its own:
-- its first call may have been carried out without an answer.
-- KEYS: 1 order key  ARGV: 1 state to begin with  2 seconds to keep it  3 now, unix ms  4 owner: consumer and entry id
-- Returns: {'begun', ''}, or {state, outcome JSON or ''} of what was there
redis.register_function('fleet_journal_begin', function(keys, argv)
  local found = redis.call('HMGET', keys[1], 'state', 'outcome', 'owner')
  if not found[1] then
    redis.call('HSET', keys[1], 'state', argv[1], 'begun_ms', argv[3], 'owner', argv[4])
    redis.call('EXPIRE', keys[1], argv[2])
    return {'begun', ''}
  end
  if found[1] == argv[1] and found[3] == argv[4] and not found[2] then return {'begun', ''} end
  return {found[1], found[2] or ''}
end)

-- Writes how an order ended. What is known stays: 'unknown' never takes the place of another outcome.
-- KEYS: 1 order key  ARGV: 1 state  2 outcome JSON  3 seconds to keep it  4 now, unix ms
-- Returns: the outcome JSON that stands
redis.register_function('fleet_journal_end', function(keys, argv)
  local found = redis.call('HMGET', keys[1], 'state', 'outcome')
  if argv[1] == 'unknown' and found[2] and found[1] ~= 'unknown' then return found[2] end
  redis.call('HSET', keys[1], 'state', argv[1], 'outcome', argv[2], 'ended_ms', argv[4])
  redis.call('EXPIRE', keys[1], argv[3])
  return argv[2]
end)
