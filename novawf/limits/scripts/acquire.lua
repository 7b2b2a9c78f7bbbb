-- Grant a permit to send one API request, or say how long to wait. Exact sliding windows.
-- KEYS: 1 grants (zset: permit id by grant ms), 2 leases (zset: permit id by expiry ms),
--       3 counts (hash: outcome -> number)
-- ARGV: 1 now (fleet ms), 2 permit id, 3 requests per minute, 4 minute window ms,
--       5 requests per hour, 6 hour window ms, 7 concurrent, 8 lease ms
-- Reply: {1, granted at ms, ''} or {0, ms until a permit could be free, what blocks}, the latter
--       one of 'minute', 'hour', 'concurrent' (or earlier, by a release), 'clock'
-- Repeat: an id granted before gets the same grant again and changes nothing, released or not.
--
-- The windows include the time a permit may wait before its request starts, so what holds for
-- grants holds for starts too. An entry leaves its window when it is OLDER than the window: both
-- times are cut to whole ms, and a request that starts late in its ms must still be covered.
-- A grant in the future means that the clock was set back: nothing is granted until it is past.
local now = tonumber(ARGV[1])
local function int(number) return string.format('%.0f', number) end

local before = redis.call('ZSCORE', KEYS[1], ARGV[2])
if before then return {1, tonumber(before), ''} end

local expired = redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', int(now))
if expired > 0 then redis.call('HINCRBY', KEYS[3], 'expired', expired) end
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) > now then return {0, tonumber(newest[2]) - now, 'clock'} end

local wait, blocks = 0, ''
local function full(limit, window, name)
  local from = int(now - window)
  local excess = redis.call('ZCOUNT', KEYS[1], from, '+inf') - limit
  if excess < 0 then return end
  local last = redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES', 'LIMIT', excess, 1)
  local free_in = tonumber(last[2]) + window + 1 - now
  if free_in > wait then wait, blocks = free_in, name end
end
full(tonumber(ARGV[3]), tonumber(ARGV[4]), 'minute')
full(tonumber(ARGV[5]), tonumber(ARGV[6]), 'hour')
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[7])
if excess >= 0 then
  local last = redis.call('ZRANGE', KEYS[2], excess, excess, 'WITHSCORES')
  local free_in = tonumber(last[2]) - now
  if free_in > wait then wait, blocks = free_in, 'concurrent' end
end
if wait > 0 then return {0, wait, blocks} end

local longest = math.max(tonumber(ARGV[4]), tonumber(ARGV[6]))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. int(now - longest))
redis.call('ZADD', KEYS[1], int(now), ARGV[2])
redis.call('ZADD', KEYS[2], int(now + tonumber(ARGV[8])), ARGV[2])
redis.call('HINCRBY', KEYS[3], 'granted', 1)
return {1, now, ''}
