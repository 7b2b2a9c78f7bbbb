-- End a pause and wake those it held.
-- KEYS: 1 gate (hash), 2.. wake lists
-- ARGV: 1 field ('paused' for the fleet, 'paused:<nova>' for one Nova)
-- Reply: 1 resumed by this call, 0 was not paused
-- Repeat: changes nothing in the gate; a waker too many costs one empty claim.
local resumed = redis.call('HDEL', KEYS[1], ARGV[1])
if resumed == 1 then
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
end
for i = 2, #KEYS do
  redis.call('LPUSH', KEYS[i], 'resume')
  redis.call('LTRIM', KEYS[i], 0, 63)
end
return resumed
