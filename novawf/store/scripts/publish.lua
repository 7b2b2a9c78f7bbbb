-- Writes what a supervisor says of its fleet, as long as the store is its own.
-- KEYS 1 owner 2 fleet 3 children 4 novas
-- ARGV 1 run id 2 what: begin (forget the run before; 3 document), fleet (3 document),
--      child (3 name, 4 record), drop (3 name), forget
-- Reply 1, or 0: the store belongs to another, and so do these records.
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
local what = ARGV[2]
if what == 'child' then
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  return 1
end
if what == 'drop' then
  redis.call('HDEL', KEYS[3], ARGV[3])
  redis.call('HDEL', KEYS[4], ARGV[3])
  return 1
end
if what ~= 'fleet' then redis.call('DEL', KEYS[3], KEYS[4]) end
if what == 'forget' then
  redis.call('DEL', KEYS[2])
else
  redis.call('HSET', KEYS[2], 'document', ARGV[3])
end
return 1
