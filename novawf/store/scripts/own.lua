-- Takes, renews or gives up the ownership of the store: one supervisor at a time.
-- KEYS 1 owner
-- ARGV 1 run id 2 what to do (take, renew, release) 3 now 4 lease ms 5 about the owner (JSON)
--      6 for take: the run id whose owner is known to be dead, or ''
-- Reply {1, how} owned now: `free` nobody had it, `own` we had it, `dead` its owner is known to be
--      gone, `lapsed` its owner has been silent for a lease; {0, about} another one has it.
--      A repeat changes nothing but the lease.
local held = redis.call('HMGET', KEYS[1], 'run', 'until', 'about')
local now = tonumber(ARGV[3])
local how = 'free'
if held[1] == ARGV[1] then
  how = 'own'
elseif held[1] then
  if ARGV[2] ~= 'take' then return {0, held[3] or ''} end
  if held[1] == ARGV[6] then
    how = 'dead'
  elseif tonumber(held[2] or '0') < now then
    how = 'lapsed'
  else
    return {0, held[3] or ''}
  end
end
if ARGV[2] == 'release' then
  redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[4])),
    'about', ARGV[5])
end
return {1, how}
