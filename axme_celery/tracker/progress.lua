-- Keep what a leg says of its progress, with the moment it was said.
--
-- KEYS[1]  axme:{ns}:progress:<leg id>   string "<moment in microseconds> <what was said>"
-- ARGV[1]  now in microseconds, or "" for Redis' own clock
-- ARGV[2]  what was said, JSON
-- ARGV[3]  kept for this long, seconds
-- Returns  nothing

local said, keep_seconds = ARGV[2], ARGV[3]
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

redis.call('SET', KEYS[1], string.format('%.0f', now) .. ' ' .. said, 'EX', keep_seconds)
