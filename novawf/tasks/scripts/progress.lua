-- Posts one progress record of a task in hand.
-- KEYS 1 identity 2 state 3 progress stream of the Nova
-- ARGV 1 now 2 iso time 3 nova 4 nova epoch 5 task id 6 task epoch 7 title 8 description
--      9 priority 10 update 11 percentage or ''
-- Reply {1} posted; {-5} a newer owner; {-6} the task is not in these hands any more. A repeat posts the same record again: records are at least once
-- here, and carry no effect.
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[4] then return {-5} end
local s = read_state(KEYS[2], ARGV[5])
if not s or s.status ~= 'in_progress' or s.owner ~= ARGV[3] or s.epoch ~= ARGV[6] then
  return {-6}
end
redis.call('XADD', KEYS[3], '*', 'task_id', ARGV[5], 'title', ARGV[7], 'description', ARGV[8],
  'status', 'in_progress', 'priority', ARGV[9], 'assignee', ARGV[3], 'created_at', s.created,
  'updated_at', ARGV[2], 'update', ARGV[10], 'progress_percentage', ARGV[11])
return {1}
