-- Give back a permit's place among the concurrent requests, and count its outcome.
-- KEYS: 1 leases (zset: permit id by expiry ms), 2 counts (hash: outcome -> number)
-- ARGV: 1 now (fleet ms), 2 permit id, 3 outcome ('ok' | 'failed' | 'void')
-- Reply: 1 released by this call, 0 no lease: released before, expired, or never granted
-- Repeat: changes nothing, counts nothing.
--
-- The grant stays in its windows whatever the outcome: the request may have been sent.
local expired = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if expired > 0 then redis.call('HINCRBY', KEYS[2], 'expired', expired) end
if redis.call('ZREM', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
return 1
