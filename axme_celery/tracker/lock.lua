-- Take a lock, or renew it, unless another owner has it.
--
-- KEYS[1]  axme:{ns}:lock:<name>   string "<end in microseconds> <owner>"
-- ARGV[1]  now in microseconds, or "" for Redis' own clock
-- ARGV[2]  the owner
-- ARGV[3]  for this long, microseconds
-- Returns  1 taken or renewed, 0 another has it

local lock, owner, term = KEYS[1], ARGV[2], tonumber(ARGV[3])
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local held = redis.call('GET', lock)
if held then
  local ends, holder = string.match(held, '^(%d+) (.*)$')
  if ends and tonumber(ends) > now and holder ~= owner then
    return 0
  end
end
-- The key outlives the lock by an hour: its end is read from the value, so that a given clock holds too.
redis.call('SET', lock, string.format('%.0f %s', now + term, owner), 'PX', math.ceil(term / 1000) + 3600000)
return 1
