-- Grant permits to send one API request each, or say how long to wait. Exact sliding windows.
-- KEYS and ARGV: see limits.lua.
-- Reply: for each request in turn: 1, granted at ms, '', '' or 0, ms until a permit could be free,
--       what blocks, the limit or upstream that does ('' the fleet's). What blocks is 'minute',
--       'hour', 'concurrent' (or earlier, by a release), 'breaker', 'provider', 'corrupt', 'clock',
--       'stop' or 'safety'.
-- Repeat: an id granted before gets the same grant again and changes nothing, released or not.
--
-- All limits of a request grant it or none does. Requests are looked at in their order, and one that
-- is refused keeps nobody behind it from a permit. The gate is read here, as a claim reads it: a
-- missing, expired or unsafe verdict gives no permit.
local swept = false
local function sweep()
  if swept then return end
  swept = true
  for _, limit in ipairs(limits) do
    local expired = redis.call('ZREMRANGEBYSCORE', limit.leases, '-inf', int(now))
    if expired > 0 then redis.call('HINCRBY', limit.counts, 'expired', expired) end
  end
end

local longest = math.max(windows[1][2], windows[2][2])

local function grant(request)
  for _, limit in ipairs(request.limits) do
    redis.call('ZREMRANGEBYSCORE', limit.grants, '-inf', '(' .. int(now - longest))
    redis.call('ZADD', limit.grants, int(now), request.id)
    redis.call('ZADD', limit.leases, int(now + request.lease), request.id)
    redis.call('HINCRBY', limit.counts, 'granted', 1)
    for _, what in ipairs({'minute', 'hour', 'in_use'}) do
      if limit[what] then limit[what] = limit[what] + 1 end
    end
    local a = advice_of(limit.name)
    if a.gap_until > now then
      a.next_at = now + a.gap
      write_advice(KEYS[3], limit.name, a)
    end
  end
  local b = breaker_of(request.upstream)
  if breaker_admit(b, request.id, now + request.lease) then
    write_breaker(KEYS[2], request.upstream, b)
  end
end

local reply = {}
local function answer(...)
  for _, value in ipairs({...}) do reply[#reply + 1] = value end
end
local shut_ms, shut_by, cools = shut()
local refused = {}  -- who asks for the same thing at the same time gets the same refusal
for _, request in ipairs(requests) do
  local before = redis.call('ZSCORE', limits[1].grants, request.id)
  if before then
    answer(1, tonumber(before), '', '')
  elseif shut_ms > 0 and not (cools and request.critical == '1') then
    answer(0, shut_ms, shut_by, '')
  else
    sweep()
    local same = refused[request.class]
    if not same then
      local wait, blocks, whose = refusal(request)
      if wait > 0 then
        same = {wait, blocks, whose}
        refused[request.class] = same
      end
    end
    if same then
      answer(0, same[1], same[2], same[3])
    else
      grant(request)
      answer(1, now, '', '')
    end
  end
end
return reply
