-- Prefix: what a provider said about one limit, as we obey it.
-- Kept in a hash, limit -> 'blocked until ms|gap ms|gap until ms|next at ms|own back-offs in a row'.
-- What cannot be read refuses.
local function read_advice(key, name)
  local packed = redis.call('HGET', key, name)
  if not packed then return {blocked = 0, gap = 0, gap_until = 0, next_at = 0, backoffs = 0} end
  local blocked, gap, gap_until, next_at, backoffs =
    string.match(packed, '^(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$')
  if not blocked then return {corrupt = true} end
  return {blocked = tonumber(blocked), gap = tonumber(gap), gap_until = tonumber(gap_until),
    next_at = tonumber(next_at), backoffs = tonumber(backoffs)}
end

local function write_advice(key, name, a)
  redis.call('HSET', key, name, int(a.blocked) .. '|' .. int(a.gap) .. '|' .. int(a.gap_until)
    .. '|' .. int(a.next_at) .. '|' .. int(a.backoffs))
end

-- How long a request has to wait (ms).
local function advice_wait(a, now)
  if a.corrupt then return CORRUPT_MS end
  local wait = a.blocked - now
  if a.gap_until > now then wait = math.max(wait, math.min(a.next_at, a.gap_until) - now) end
  return math.max(0, wait)
end
