-- Prefix: the breaker of one upstream. It is the table of novawf/limits/breaker.py, which says what
-- the states mean; one list of cases runs against both.
-- Kept in a hash, upstream -> 'state|failures|until ms|openings|probe id|probe until ms'. What cannot
-- be read is state 'corrupt': it refuses, and nothing but a person changes it.
local function int(number) return string.format('%.0f', number) end
local CORRUPT_MS = 5000

local function read_breaker(key, upstream)
  local packed = redis.call('HGET', key, upstream)
  if not packed then
    return {state = 'closed', failures = 0, open_until = 0, openings = 0, probe = '', probe_until = 0}
  end
  local state, failures, open_until, openings, probe, probe_until =
    string.match(packed, '^([a-z_]+)|(%d+)|(%d+)|(%d+)|([^|]*)|(%d+)$')
  if state ~= 'closed' and state ~= 'open' and state ~= 'half_open' then
    return {state = 'corrupt'}
  end
  return {state = state, failures = tonumber(failures), open_until = tonumber(open_until),
    openings = tonumber(openings), probe = probe, probe_until = tonumber(probe_until)}
end

local function write_breaker(key, upstream, b)
  redis.call('HSET', key, upstream, b.state .. '|' .. int(b.failures) .. '|' .. int(b.open_until)
    .. '|' .. int(b.openings) .. '|' .. b.probe .. '|' .. int(b.probe_until))
end

-- How long a request has to wait (ms); 0 when it is let through.
local function breaker_wait(b, now)
  if b.state == 'corrupt' then return CORRUPT_MS end
  if b.state == 'open' then return math.max(0, b.open_until - now) end
  if b.state == 'half_open' then return math.max(0, b.probe_until - now) end
  return 0
end

-- A request is let through; true when that changed something: it is the probe.
local function breaker_admit(b, id, probe_until)
  if b.state == 'closed' then return false end
  b.state, b.probe, b.probe_until = 'half_open', id, probe_until
  return true
end

-- A request ended ('ok', 'failed', 'answered', 'void'); true when that changed something.
local function breaker_end(b, id, event, now, most, open_ms, open_cap_ms)
  local function open()
    b.openings = b.openings + 1
    local length = math.min(open_cap_ms, open_ms * 2 ^ math.min(b.openings - 1, 20))
    b.state, b.open_until, b.probe, b.probe_until = 'open', now + length, '', 0
  end
  if b.state == 'closed' then
    if event == 'ok' and b.failures > 0 then
      b.failures = 0
      return true
    elseif event == 'failed' then
      b.failures = b.failures + 1
      if b.failures >= most then open() end
      return true
    end
  elseif b.state == 'half_open' and b.probe == id then
    if event == 'failed' then
      open()
    elseif event == 'void' then
      b.state, b.open_until, b.probe, b.probe_until = 'open', now, '', 0
    else
      b.state, b.failures, b.open_until, b.openings, b.probe, b.probe_until = 'closed', 0, 0, 0, '', 0
    end
    return true
  end
  return false
end
