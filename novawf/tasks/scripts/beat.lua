-- A Nova's heartbeat: its state is kept, and the lease of its task renewed.
-- KEYS 1 identity 2 novas 3 gate 4 state 5 leases 6 presence 7 workflow state of the Nova
--      8 ready 9 pinned
-- ARGV 1 now 2 nova 3 nova epoch 4 heartbeat JSON 5 presence 6 presence TTL ms
--      7 task id or '' 8 task epoch 9 lease ms 10 state TTL s 11… workflow state (field, value, …)
-- Reply {1, stopped, paused, valid until ms, cancel, lease ok, objection, work} with 0/1 flags
--      (stopped 2: by a stop that lets running work finish); the
--      objection is why the verdict is unsafe, '' when it is safe; work: something waits that this
--      Nova may take; {-5} newer owner.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return {-5} end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
redis.call('SET', KEYS[6], ARGV[5], 'PX', ARGV[6])
-- Under a key of another type it is not kept; a lease that is not renewed would be worse.
if ARGV[11] then redis.pcall('HSET', KEYS[7], (unpack or table.unpack)(ARGV, 11)) end
redis.call('EXPIRE', KEYS[7], ARGV[10])
local cancel, held = 0, 1
if ARGV[7] ~= '' then
  local s = read_state(KEYS[4], ARGV[7])
  if s and s.status == 'in_progress' and s.owner == ARGV[2] and s.epoch == ARGV[8] then
    redis.call('ZADD', KEYS[5], int(tonumber(ARGV[1]) + tonumber(ARGV[9])), ARGV[7])
    if s.cancel ~= '' then cancel = 1 end
  else
    held = 0
  end
end
local stopped, paused, valid_until, objection, work = hear(KEYS[3], KEYS[4], KEYS[8], KEYS[9],
  ARGV[2])
return {1, stopped, paused, valid_until, cancel, held, objection, work}
