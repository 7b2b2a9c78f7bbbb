-- Removes the oldest entries of a stream that is too long, none at or after a bound.
--
-- KEYS  1 stream
-- ARGV  1 bound: the first id that must stay  2 length to come down to  3 entries to look at
-- Replies how many were removed; 0 when it is short enough or nothing before the bound is left.
-- A repeat removes only what is still too much.
--
-- Who calls knows the bound; the length is asked for here, as others add entries meanwhile.

local function before(a, b)
  local a_ms, a_sequence = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_sequence = string.match(b, '^(%d+)-(%d+)$')
  -- Parts may have 20 digits, more than a number holds: compared by length, then as text.
  if a_ms ~= b_ms then
    if #a_ms ~= #b_ms then return #a_ms < #b_ms end
    return a_ms < b_ms
  end
  if #a_sequence ~= #b_sequence then return #a_sequence < #b_sequence end
  return a_sequence < b_sequence
end

local excess = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[2])
if excess <= 0 then return 0 end

local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if before(newest[1][1], ARGV[1]) then
  return redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', ARGV[2])
end

-- The bound is within the stream: only looking at entries tells how many lie before it.
local look = tonumber(ARGV[3])
if excess < look then look = excess end
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', look + 1)
local keep = ARGV[1]
if #oldest > look and before(oldest[look + 1][1], keep) then keep = oldest[look + 1][1] end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', keep)
