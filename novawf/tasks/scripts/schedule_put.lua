-- Changes one schedule if it is still what the caller read.
-- KEYS 1 schedules: name → record (JSON)
-- ARGV 1 name 2 the record as it was read, '' for none 3 the record as it shall be
-- Reply 1 written; 0 it is something else by now, and stays. A repeat after a lost reply answers 0:
--      who reads again finds what it wrote.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
