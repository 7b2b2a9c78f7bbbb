-- Posts one progress record of a task in hand, once.
-- KEYS 1 identity 2 state 3 progress stream of the Nova 4 counts
-- ARGV 1 now 2 iso time 3 nova 4 nova epoch 5 task id 6 task epoch 7 title 8 description
--      9 priority 10 update 11 percentage or '' 12 number of the report within this life
-- Reply {1} posted; {2} was posted before (a repeat, or an older one); {-5} a newer owner; {-6} the
--      task is not in these hands any more.
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[4] then return {-5} end
local s = read_state(KEYS[2], ARGV[5])
if not s or s.status ~= 'in_progress' or s.owner ~= ARGV[3] or s.epoch ~= ARGV[6] then
  return {-6}
end
local last = redis.call('HGET', KEYS[1], 'report:' .. ARGV[3])
if last then
  local life, number = string.match(last, '^(%d+)|(%d+)$')
  if life == ARGV[4] and tonumber(number) >= tonumber(ARGV[12]) then return {2} end
end
redis.call('XADD', KEYS[3], '*', 'task_id', ARGV[5], 'title', ARGV[7], 'description', ARGV[8],
  'status', 'in_progress', 'priority', ARGV[9], 'assignee', ARGV[3], 'created_at', s.created,
  'updated_at', record_time(s, ARGV[2]), 'update', ARGV[10], 'progress_percentage', ARGV[11])
redis.call('HSET', KEYS[1], 'report:' .. ARGV[3], ARGV[4] .. '|' .. ARGV[12])
redis.call('HINCRBY', KEYS[4], 'nova:' .. ARGV[3] .. ':progress', 1)
return {1}
