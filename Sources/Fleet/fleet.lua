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

-- Opens an order's journal, or says what stands in it.
-- KEYS: 1 order key  ARGV: 1 state to begin with  2 seconds to keep it  3 now, unix ms
-- Returns: {'begun'}, or {state, outcome JSON or ''} of what was there
redis.register_function('fleet_journal_begin', function(keys, argv)
  if redis.call('HSETNX', keys[1], 'state', argv[1]) == 1 then
    redis.call('HSET', keys[1], 'begun_ms', argv[3])
    redis.call('EXPIRE', keys[1], argv[2])
    return {'begun'}
  end
  local found = redis.call('HMGET', keys[1], 'state', 'outcome')
  return {found[1], found[2] or ''}
end)

-- Writes how an order ended.
-- KEYS: 1 order key  ARGV: 1 state  2 outcome JSON  3 seconds to keep it  4 now, unix ms
-- Returns: 1
redis.register_function('fleet_journal_end', function(keys, argv)
  redis.call('HSET', keys[1], 'state', argv[1], 'outcome', argv[2], 'ended_ms', argv[4])
  redis.call('EXPIRE', keys[1], argv[3])
  return 1
end)
