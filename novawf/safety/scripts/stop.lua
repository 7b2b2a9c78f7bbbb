-- Emergency stop: from this script's run on no claim succeeds, until clear_stop.
-- KEYS: 1 gate (hash), 2 acknowledgements (stream), 3.. inboxes of the Novas (lists)
-- ARGV: 1 now (fleet ms), 2 wall time (unix s), 3 reason, 4 by, 5 '1' when running work may finish
-- Reply: {1 stopped by this call, 2 it ends now what the stop before let finish, 0 nothing changed
--      (the first stop's reason and time stay in any case); number of the stop that stands, by
--      which the Novas acknowledge it; 1 when running work may finish under it; id of the last
--      acknowledgement so far: those of who is told now come after it}
-- Repeat: changes nothing in the gate; the Novas are told again, and acknowledge again.
local gate = redis.call('HMGET', KEYS[1], 'stop', 'stop_drains', 'stop_number')
local stopped, drains, number = gate[1] == '1', gate[2] == '1', gate[3]
local change = 0
if not stopped then
  change, drains = 1, ARGV[5] == '1'
  redis.call('HSET', KEYS[1], 'stop', '1', 'stop_at', ARGV[1], 'stop_wall', ARGV[2],
    'stop_reason', ARGV[3], 'stop_by', ARGV[4])
elseif drains and ARGV[5] ~= '1' then
  change, drains = 2, false
end
if change > 0 or not number then
  number = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'epoch', 1))
  redis.call('HSET', KEYS[1], 'stop_number', number, 'stop_drains', drains and '1' or '0')
end
local order = '{"op":"stop","n":' .. number .. ',"drains":' .. (drains and 'true' or 'false') .. '}'
local last = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local after = not last.err and last[1] and last[1][1] or '0-0'
for i = 3, #KEYS do
  -- Under a key of another type nothing is told: heartbeats tell of the stop too.
  redis.pcall('RPUSH', KEYS[i], order)
  redis.pcall('LTRIM', KEYS[i], -256, -1)
end
return {change, tonumber(number), drains and 1 or 0, after}
