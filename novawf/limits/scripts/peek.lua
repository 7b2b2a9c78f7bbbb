-- What the limits would allow now. Changes nothing.
-- KEYS and ARGV: see limits.lua; the requests' ids and leases are not looked at.
-- Reply: for each limit: used in the minute, used in the hour, in use, granted, ok, failed, expired,
--       void, unpermitted; then for each request: ms until a permit could be free (0: now), what
--       blocks, the limit or upstream that does, as acquire.lua would answer.
-- Repeat: harmless.
local reply = {}
local function add(...)
  for _, value in ipairs({...}) do reply[#reply + 1] = value end
end
for _, limit in ipairs(limits) do
  add(used(limit, 'minute', windows[1][2]), used(limit, 'hour', windows[2][2]), in_use(limit))
  local counts = redis.call('HMGET', limit.counts, 'granted', 'ok', 'failed', 'expired', 'void',
    'unpermitted')
  for i = 1, 6 do add(tonumber(counts[i] or '0')) end
end
local shut_ms, shut_by, cools = shut()
for _, request in ipairs(requests) do
  if shut_ms > 0 and not (cools and request.critical == '1') then
    add(shut_ms, shut_by, '')
  else
    add(refusal(request))
  end
end
return reply
