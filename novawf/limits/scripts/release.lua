-- Give back a permit's places among the concurrent requests, count its outcome, and learn from it.
-- KEYS: 1 grants of the fleet (zset), 2 breakers (hash), 3 advice (hash), then for each limit the
--       permit was granted by, the fleet's first: leases (zset), counts (hash)
-- ARGV: 1 now (fleet ms), 2 permit id, 3 outcome ('ok' | 'failed' | 'void'), 4 upstream,
--       5 limit that was asked for ('' the fleet's), 6 what it is to the breaker ('ok' | 'failed' |
--       'answered' | 'void'), 7 failures that open it, 8 ms it stays open, 9 ms at most,
--       10 ms to block the limit (-1 no advice, -2 an own back-off), 11 gap between grants in ms
--       (-1 no advice, 0 none), 12 how long the gap holds in ms, 13 longest block ms,
--       14 first own back-off ms
-- Reply: 1 released by this call, 0 no lease: released before, or expired, or never used and never
--       granted; -1 a request that no grant is known of ended: it was sent without a permit
-- Repeat: changes nothing, counts nothing, except that one without a permit is counted each time.
--
-- The grant stays in its windows whatever the outcome: the request may have been sent. What comes
-- after the lease has expired teaches nothing: another may hold the place, and be the probe.
local now, id, outcome = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local released = false
for at = 4, #KEYS, 2 do
  local expired = redis.call('ZREMRANGEBYSCORE', KEYS[at], '-inf', ARGV[1])
  if expired > 0 then redis.call('HINCRBY', KEYS[at + 1], 'expired', expired) end
  if redis.call('ZREM', KEYS[at], id) == 1 then
    redis.call('HINCRBY', KEYS[at + 1], outcome, 1)
    released = released or at == 4
  end
end
if not released then
  if outcome == 'void' or redis.call('ZSCORE', KEYS[1], id) then return 0 end
  redis.call('HINCRBY', KEYS[5], 'unpermitted', 1)
  return -1
end

local b = read_breaker(KEYS[2], ARGV[4])
if breaker_end(b, id, ARGV[6], now, tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])) then
  write_breaker(KEYS[2], ARGV[4], b)
end

local a = read_advice(KEYS[3], ARGV[5])
if a.corrupt then return 1 end
local block, gap, cap, changed = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[13]), false
if block == -2 then
  a.backoffs = a.backoffs + 1
  block = tonumber(ARGV[14]) * 2 ^ math.min(a.backoffs - 1, 20)
  changed = true
elseif outcome == 'ok' and a.backoffs > 0 then
  a.backoffs, changed = 0, true
end
if block > 0 then
  a.blocked, changed = math.max(a.blocked, now + math.min(block, cap)), true
end
if gap > 0 then
  local since = a.gap_until > now and a.next_at or now + gap
  a.gap, a.gap_until, a.next_at = gap, now + tonumber(ARGV[12]), math.min(since, now + gap)
  changed = true
elseif gap == 0 and a.gap > 0 then
  a.gap, a.gap_until, a.next_at, changed = 0, 0, 0, true
end
if changed then write_advice(KEYS[3], ARGV[5], a) end
return 1
