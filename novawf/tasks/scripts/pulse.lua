-- The heartbeat of a Nova that has nothing in hand and nothing new to say but its cycle.
-- KEYS 1 identity 2 novas 3 gate 4 presence 5 ready 6 pinned 7 state
-- ARGV 1 now 2 nova 3 nova epoch 4 cycles 5 presence 6 presence TTL ms 7 progress (ms)
-- Reply as beat.lua's; {-2}: what it said before is not there, so all must be said; {-5} newer owner.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return {-5} end
local said = redis.call('HGET', KEYS[2], ARGV[2])
if not said then return {-2} end
local changes = { { 'cycles', ARGV[4] }, { 'seen_ms', ARGV[1] }, { 'progress_ms', ARGV[7] } }
for _, change in ipairs(changes) do
  local found
  said, found = string.gsub(said, '"' .. change[1] .. '":%d+', '"' .. change[1] .. '":' .. change[2], 1)
  if found == 0 then return {-2} end
end
redis.call('HSET', KEYS[2], ARGV[2], said)
redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[6])
local stopped, paused, valid_until, objection, work = hear(KEYS[3], KEYS[7], KEYS[5], KEYS[6],
  ARGV[2])
return {1, stopped, paused, valid_until, 0, 1, objection, work}
