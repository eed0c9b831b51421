-- Note that a sweeper swept, and forget those not seen for long.
--
-- KEYS[1]  axme:{ns}:ticks   zset, member the sweeper's name, score its last sweep in microseconds
-- ARGV[1]  now in microseconds, or "" for Redis' own clock
-- ARGV[2]  the sweeper, or "" to note none
-- ARGV[3]  forget those this long ago, microseconds
-- Returns  name, moment, name, moment, ... of those left

local ticks, sweeper, keep_for = KEYS[1], ARGV[2], tonumber(ARGV[3])
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

if sweeper ~= '' then
  redis.call('ZADD', ticks, now, sweeper)
end
redis.call('ZREMRANGEBYSCORE', ticks, '-inf', now - keep_for)
return redis.call('ZRANGE', ticks, 0, -1, 'WITHSCORES')
