-- What the limits would allow now. Changes nothing.
-- KEYS: 1 grants (zset), 2 leases (zset), 3 counts (hash)
-- ARGV: 1 now (fleet ms), 2 requests per minute, 3 minute window ms, 4 requests per hour,
--       5 hour window ms, 6 concurrent
-- Reply: {used in the minute, used in the hour, in use, ms until a permit could be free,
--       what blocks ('' nothing, else as in acquire.lua), granted, ok, failed, expired, void}
-- Repeat: harmless. The windows are those of acquire.lua.
local now = tonumber(ARGV[1])
local function int(number) return string.format('%.0f', number) end
local reply = {0, 0, 0, 0, ''}
local function blocked(free_in, name)
  if free_in > reply[4] then reply[4], reply[5] = free_in, name end
end

local function window(place, limit, length, name)
  local from = int(now - length)
  local used = redis.call('ZCOUNT', KEYS[1], from, '+inf')
  reply[place] = used
  if used < limit then return end
  local last = redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES',
    'LIMIT', used - limit, 1)
  blocked(tonumber(last[2]) + length + 1 - now, name)
end
window(1, tonumber(ARGV[2]), tonumber(ARGV[3]), 'minute')
window(2, tonumber(ARGV[4]), tonumber(ARGV[5]), 'hour')

local alive = '(' .. int(now)
local in_use = redis.call('ZCOUNT', KEYS[2], alive, '+inf')
reply[3] = in_use
local excess = in_use - tonumber(ARGV[6])
if excess >= 0 then
  local last = redis.call('ZRANGEBYSCORE', KEYS[2], alive, '+inf', 'WITHSCORES', 'LIMIT', excess, 1)
  blocked(tonumber(last[2]) - now, 'concurrent')
end
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) > now then
  reply[4], reply[5] = tonumber(newest[2]) - now, 'clock'
end

local counts = redis.call('HMGET', KEYS[3], 'granted', 'ok', 'failed', 'expired', 'void')
for i = 1, 5 do reply[5 + i] = tonumber(counts[i] or '0') end
return reply
