-- Write a safety verdict alone into the gate: nothing else can be, or is to be, written along with it
-- (round.lua). Never touches stop or pause, nor what holds single Novas.
-- KEYS: 1 gate (hash)
-- ARGV: 1 checked_at (fleet ms at which the evaluation began), 2 valid_until (fleet ms),
--       3 verdict ('safe' | 'unsafe'), 4 reason, 5 now (fleet ms), 6 now (ISO 8601),
--       7 action ('allow' | 'delay' | 'pause' | 'halt'), 8 its expected end (fleet ms; 0 unknown)
-- Reply: 1 written, 0 refused because a later verdict is in place
-- Repeat: writes the same again; a late repeat is refused.
--
-- A verdict that was overtaken on its way must not replace its successor. One that looks older by
-- more than its own validity was not overtaken: the clock was set back, and it is the best there is.
local checked_at, valid_until = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = tonumber(redis.call('HGET', KEYS[1], 'checked_at') or '0')
local behind = stored - checked_at
if behind > 0 and behind <= valid_until - checked_at then
  return 0
end
-- `clock` tells claims that waited here what time it is (tasks/scripts/claim.lua): now, and the
-- store's own time in microseconds when that was written.
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'clock', ARGV[5] .. '|' .. ARGV[6] .. '|'
  .. string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])))
redis.call('HSET', KEYS[1], 'checked_at', ARGV[1], 'valid_until', ARGV[2],
  'verdict', ARGV[3], 'reason', ARGV[4], 'action', ARGV[7], 'until', ARGV[8])
return 1
