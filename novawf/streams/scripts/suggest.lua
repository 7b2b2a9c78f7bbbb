-- Keeps one suggestion; of too many the oldest are dropped.
-- KEYS 1 suggestions by arrival 2 their texts 3 task requests 4 signal counts
-- ARGV 1 now 2 signal id 3 member of KEYS 1, `tier|kind|nova|signal id` 4 JSON
--      5 most that are kept 6 field that counts it 7 field that counts dropped ones
-- Reply 1 kept; 0 it is there, or was a task before. A repeat changes nothing.
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[4], ARGV[6], 1)
local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[5])
if over > 0 then
  for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do
    redis.call('ZREM', KEYS[1], member)
    redis.call('HDEL', KEYS[2], string.match(member, '^[^|]*|[^|]*|[^|]*|(.*)$'))
    redis.call('HINCRBY', KEYS[4], ARGV[7], 1)
  end
end
return 1
