-- End an emergency stop and wake the idle and the pausing.
-- KEYS: 1 gate (hash), then wake lists, then inboxes of the Novas (lists)
-- ARGV: 1 now (fleet ms), 2 by, 3 how many wake lists
-- Reply: 1 cleared by this call, 0 was not stopped
-- Repeat: changes nothing in the gate; a waker too many costs one empty claim, an order too many one look.
local cleared = redis.call('HGET', KEYS[1], 'stop') == '1'
if cleared then
  redis.call('HDEL', KEYS[1], 'stop', 'stop_at', 'stop_wall', 'stop_reason', 'stop_by',
    'stop_number', 'stop_drains')
  redis.call('HSET', KEYS[1], 'cleared_at', ARGV[1], 'cleared_by', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
end
local wakes = tonumber(ARGV[3])
for i = wakes + 2, #KEYS do
  redis.pcall('RPUSH', KEYS[i], '{"op":"look"}')
  redis.pcall('LTRIM', KEYS[i], -256, -1)
end
for i = 2, wakes + 1 do
  redis.call('LPUSH', KEYS[i], 'clear')
  redis.call('LTRIM', KEYS[i], 0, 63)
end
return cleared and 1 or 0
