-- Emergency stop: from this script's run on no claim succeeds, until clear_stop.
-- KEYS: 1 gate (hash), 2.. inboxes of the Novas (lists)
-- ARGV: 1 now (fleet ms), 2 wall time (unix s), 3 reason, 4 by
-- Reply: 1 stopped by this call, 0 was stopped already (the first stop's data stay)
-- Repeat: changes nothing in the gate; the Novas are told again, which is harmless.
local fresh = redis.call('HGET', KEYS[1], 'stop') ~= '1'
if fresh then
  redis.call('HSET', KEYS[1], 'stop', '1', 'stop_at', ARGV[1], 'stop_wall', ARGV[2],
    'stop_reason', ARGV[3], 'stop_by', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
end
for i = 2, #KEYS do
  redis.call('RPUSH', KEYS[i], '{"op":"stop"}')
  redis.call('LTRIM', KEYS[i], -256, -1)
end
return fresh and 1 or 0
