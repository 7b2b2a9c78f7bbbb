-- Pause the fleet or one Nova: no claim of it succeeds until resume. Work in hand goes on.
-- KEYS: 1 gate (hash)
-- ARGV: 1 field ('paused' for the fleet, 'paused:<nova>' for one Nova)
-- Reply: 1 paused by this call, 0 was paused already
-- Repeat: changes nothing.
if redis.call('HGET', KEYS[1], ARGV[1]) == '1' then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], '1')
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
return 1
