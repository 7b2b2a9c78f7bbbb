-- Prefix, after breaker and advice: reads the limits that are asked about, and says whether they let
-- a request through. acquire.lua and peek.lua share it, so they cannot disagree.
-- KEYS: 1 gate (hash), 2 breakers (hash), 3 advice (hash), then for each limit, the fleet's first:
--       grants (zset: permit id by grant ms), leases (zset: permit id by expiry ms), counts (hash)
-- ARGV: 1 now (fleet ms), 2 minute window ms, 3 hour window ms, 4 how many limits, then for each:
--       +0 name, +1 requests per minute, +2 per hour, +3 concurrent, +4 .. +6 the same for callers
--       that are not critical (-1: no such bound); then, to the end, requests: +0 permit id,
--       +1 '1' critical, +2 upstream, +3 lease ms, +4 numbers of the limits that apply, commas between
--
-- The windows include the time a permit may wait before its request starts, so what holds for
-- grants holds for starts too. An entry leaves its window when it is OLDER than the window: both
-- times are cut to whole ms, and a request that starts late in its ms must still be covered.
-- A grant in the future means that the clock was set back: nothing is granted until it is past.
local GATE_MS = 500  -- when to ask again while the gate is shut: nobody tells the limiter
local now = tonumber(ARGV[1])
local windows = {{'minute', tonumber(ARGV[2])}, {'hour', tonumber(ARGV[3])}}

local limits = {}
for i = 1, tonumber(ARGV[4]) do
  local at, key = 5 + (i - 1) * 7, 4 + (i - 1) * 3
  limits[i] = {name = ARGV[at], grants = KEYS[key], leases = KEYS[key + 1], counts = KEYS[key + 2],
    ['1'] = {minute = tonumber(ARGV[at + 1]), hour = tonumber(ARGV[at + 2]),
      concurrent = tonumber(ARGV[at + 3])},
    ['0'] = {minute = tonumber(ARGV[at + 4]), hour = tonumber(ARGV[at + 5]),
      concurrent = tonumber(ARGV[at + 6])}}
end

local requests = {}
for at = 5 + #limits * 7, #ARGV, 5 do
  local request = {id = ARGV[at], critical = ARGV[at + 1], upstream = ARGV[at + 2],
    lease = tonumber(ARGV[at + 3]), limits = {},
    class = ARGV[at + 1] .. ARGV[at + 2] .. '|' .. ARGV[at + 4]}
  for number in string.gmatch(ARGV[at + 4], '%d+') do
    request.limits[#request.limits + 1] = limits[tonumber(number)]
  end
  requests[#requests + 1] = request
end

-- Why nothing at all may start: how long that holds at least (0: it may), 'stop', 'safety' or
-- 'clock', and whether that is only a cooldown, in which critical requests go on (spec §3).
local function shut()
  local gate = redis.call('HMGET', KEYS[1], 'stop', 'verdict', 'valid_until', 'action')
  if gate[1] == '1' then return GATE_MS, 'stop', false end
  local valid_until = tonumber(gate[3] or '0')
  if not valid_until or not (valid_until >= now) then return GATE_MS, 'safety', false end
  local newest = redis.call('ZREVRANGE', limits[1].grants, 0, 0, 'WITHSCORES')
  if newest[2] and tonumber(newest[2]) > now then
    return tonumber(newest[2]) - now, 'clock', false
  end
  if gate[2] ~= 'safe' then return GATE_MS, 'safety', gate[2] == 'unsafe' and gate[4] == 'delay' end
  return 0, '', false
end

local breakers, advices = {}, {}
local function breaker_of(upstream)
  breakers[upstream] = breakers[upstream] or read_breaker(KEYS[2], upstream)
  return breakers[upstream]
end
local function advice_of(name)
  advices[name] = advices[name] or read_advice(KEYS[3], name)
  return advices[name]
end

-- Grants in a window, and requests in flight. Read once; acquire.lua counts its own grants in.
local function used(limit, what, length)
  if not limit[what] then
    limit[what] = redis.call('ZCOUNT', limit.grants, int(now - length), '+inf')
  end
  return limit[what]
end
local function in_use(limit)
  if not limit.in_use then
    limit.in_use = redis.call('ZCOUNT', limit.leases, '(' .. int(now), '+inf')
  end
  return limit.in_use
end

-- What keeps a request waiting: ms (0: nothing does), what, and which limit or upstream. The longest
-- wait is told, since nothing is granted before.
local function refusal(request)
  local wait, blocks, whose = 0, '', ''
  local function blocked(free_in, what, name)
    if free_in > wait then wait, blocks, whose = free_in, what, name end
  end
  local b = breaker_of(request.upstream)
  blocked(breaker_wait(b, now), b.state == 'corrupt' and 'corrupt' or 'breaker', request.upstream)
  for _, limit in ipairs(request.limits) do
    local a, most = advice_of(limit.name), limit[request.critical]
    blocked(advice_wait(a, now), a.corrupt and 'corrupt' or 'provider', limit.name)
    for _, window in ipairs(windows) do
      local what, length = window[1], window[2]
      if most[what] >= 0 then
        local excess = used(limit, what, length) - most[what]
        if excess >= 0 and most[what] == 0 then
          blocked(length, what, limit.name)
        elseif excess >= 0 then
          local last = redis.call('ZRANGEBYSCORE', limit.grants, int(now - length), '+inf',
            'WITHSCORES', 'LIMIT', excess, 1)
          blocked(tonumber(last[2]) + length + 1 - now, what, limit.name)
        end
      end
    end
    if most.concurrent >= 0 then
      local excess = in_use(limit) - most.concurrent
      if excess >= 0 then
        local last = redis.call('ZRANGEBYSCORE', limit.leases, '(' .. int(now), '+inf',
          'WITHSCORES', 'LIMIT', excess, 1)
        blocked(tonumber(last[2]) - now, 'concurrent', limit.name)
      end
    end
  end
  return wait, blocks, whose
end
