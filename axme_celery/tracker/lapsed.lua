-- The leases past their end, the longest past first. They stay until released.
--
-- KEYS[1]  axme:{ns}:leases   zset, member "<leg id>|<run>", score its end in microseconds
-- ARGV[1]  now in microseconds, or "" for Redis' own clock
-- ARGV[2]  at most this many
-- Returns  the members

local leases, limit = KEYS[1], ARGV[2]
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

return redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, limit)
