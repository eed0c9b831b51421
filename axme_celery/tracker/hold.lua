-- Take or renew leases: each ends a term from now, whether it was there or not.
--
-- KEYS[1]  axme:{ns}:leases   zset, member "<leg id>|<run>", score its end in microseconds
-- ARGV[1]  now in microseconds, or "" for Redis' own clock
-- ARGV[2]  the term, microseconds
-- ARGV[3]  which: "all", or "unknown" for only those with no entry (their worker died, or the tracker was lost)
-- ARGV[4]... the members
-- Returns  how many had no entry

local leases, term, which = KEYS[1], tonumber(ARGV[2]), ARGV[3]
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local new = 0
for i = 4, #ARGV do
  if which == 'unknown' then
    new = new + redis.call('ZADD', leases, 'NX', now + term, ARGV[i])
  else
    new = new + redis.call('ZADD', leases, now + term, ARGV[i])
  end
end
return new
