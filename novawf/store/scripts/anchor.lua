-- The offset of fleet time to the time since boot, agreed on by all callers of one boot.
--
-- KEYS  1  novawf:clock, hash: boot id -> offset in ms; last_ms -> latest fleet time seen, in ms
--          (and drift_ms, which is not this script's)
-- ARGV  1  boot id of the caller
--       2  unix time minus boot time, now, in ms: the offset if this boot has none yet
--       3  time since boot, now, in ms
-- Reply    the offset in ms, as a string
--
-- Fleet time does not go back across boots: a new boot goes on from last_ms when the wall clock
-- is behind it. A repeat changes nothing but last_ms, which only grows.
local clock, boot_id = KEYS[1], ARGV[1]
local since_boot = tonumber(ARGV[3])
local last = tonumber(redis.call('HGET', clock, 'last_ms') or 0)

local offset = tonumber(redis.call('HGET', clock, boot_id) or '')
if not offset then
  offset = tonumber(ARGV[2])
  if since_boot + offset < last then
    offset = last - since_boot
  end
  redis.call('HSET', clock, boot_id, string.format('%.0f', offset))
end
if since_boot + offset > last then
  redis.call('HSET', clock, 'last_ms', string.format('%.0f', since_boot + offset))
end
return string.format('%.0f', offset)
