-- Forgets a suggestion that became a task.
-- KEYS 1 suggestions by arrival 2 their texts 3 signal counts
-- ARGV 1 signal id 2 member of KEYS 1 3 field that counts it
-- Reply 1 forgotten; 0 it was not there. A repeat changes nothing.
redis.call('ZREM', KEYS[1], ARGV[2])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
return 1
