-- A new orchestrator: its fencing token. It is a fleet time, so that one who comes later has the greater
-- even where the hash was removed meanwhile.
-- KEYS: 1 safety state (hash)
-- ARGV: 1 now (fleet ms)
-- Reply: the token
-- Repeat: a later token; the one before was nobody's.
local before = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local epoch = string.format('%.0f', math.max(before + 1, tonumber(ARGV[1])))
redis.call('HSET', KEYS[1], 'epoch', epoch)
return epoch
