-- Set timers that are not known here: the tracker may have been lost.
-- A timer that was taken stays hidden, for its taker is at it.
--
-- KEYS[1]  axme:{ns}:timers  zset, member "<kind>|<id>", score its due moment in microseconds
-- KEYS[2]  axme:{ns}:hidden  zset, the taken members
-- ARGV[1]  now; not used
-- ARGV[2..] member, due moment in microseconds, member, due moment, ...
-- Returns  nothing

for i = 2, #ARGV, 2 do
  if not redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'NX', ARGV[i + 1], ARGV[i])
  end
end
