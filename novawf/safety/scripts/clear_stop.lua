-- End an emergency stop and wake the idle.
-- KEYS: 1 gate (hash), 2.. wake lists
-- ARGV: 1 now (fleet ms), 2 by
-- Reply: 1 cleared by this call, 0 was not stopped
-- Repeat: changes nothing in the gate; a waker too many costs one empty claim.
local cleared = redis.call('HGET', KEYS[1], 'stop') == '1'
if cleared then
  redis.call('HDEL', KEYS[1], 'stop', 'stop_at', 'stop_wall', 'stop_reason', 'stop_by',
    'stop_number', 'stop_drains')
  redis.call('HSET', KEYS[1], 'cleared_at', ARGV[1], 'cleared_by', ARGV[2])
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
end
for i = 2, #KEYS do
  redis.call('LPUSH', KEYS[i], 'clear')
  redis.call('LTRIM', KEYS[i], 0, 63)
end
return cleared and 1 or 0
