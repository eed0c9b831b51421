-- Take what falls due, and hide it, so that nobody else takes it meanwhile.
-- What was hidden and never unscheduled comes back first: its taker died.
--
-- KEYS[1]  axme:{ns}:timers      zset, member "<kind>|<id>", score its due moment in microseconds
-- KEYS[2]  axme:{ns}:hidden      zset, the taken members, score the moment they come back, microseconds
-- KEYS[3]  axme:{ns}:hidden_due  hash, the taken members -> their due moment
-- ARGV[1]  now in microseconds, or "" for Redis' own clock
-- ARGV[2]  due at or before this, microseconds by the ledger's clock
-- ARGV[3]  hide for this long, microseconds
-- ARGV[4]  at most this many
-- Returns  member, due, member, due, ... the earliest due first

local timers, hidden, hidden_due = KEYS[1], KEYS[2], KEYS[3]
local due_by, hide_for, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- In each loop the write that needs memory comes first: Redis refuses a script for
-- want of memory only at its first write, so it is all done or nothing is.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', hidden, '-inf', now, 'LIMIT', 0, limit)) do
  local due = redis.call('HGET', hidden_due, member)
  if due then
    redis.call('ZADD', timers, due, member)
  end
  redis.call('ZREM', hidden, member)
  redis.call('HDEL', hidden_due, member)
end

local taken = redis.call('ZRANGEBYSCORE', timers, '-inf', due_by, 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #taken, 2 do
  redis.call('HSET', hidden_due, taken[i], taken[i + 1])
  redis.call('ZADD', hidden, now + hide_for, taken[i])
end
if #taken > 0 then
  redis.call('ZREMRANGEBYRANK', timers, 0, #taken / 2 - 1)
end
return taken
