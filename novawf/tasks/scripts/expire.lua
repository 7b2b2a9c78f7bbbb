-- Blocks a task whose deadline passed before it began.
-- KEYS 1 state 2 counts 3 ready 4 pinned 5 delayed 6 waiting 7 cascade 8 deadlines
--      9 completed stream of the target or `fleet`
-- ARGV 1 now 2 iso time 3 task id 4 title 5 description 6 priority
-- Reply {1} blocked now; {0} not: it has ended, runs (its Nova ends it), or is not due yet. A repeat
--      changes nothing.
local id = ARGV[3]
local s = read_state(KEYS[1], id)
if not s or s.status == 'completed' or (s.status == 'blocked' and s.outcome ~= 'awaiting_approval')
then
  redis.call('ZREM', KEYS[8], id)
  return {0}
end
if s.status == 'in_progress' or s.deadline == '' or tonumber(s.deadline) > tonumber(ARGV[1]) then
  return {0}
end
redis.call('XADD', KEYS[9], '*', 'task_id', id, 'title', ARGV[4], 'description', ARGV[5],
  'status', 'blocked', 'priority', ARGV[6], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', record_time(s, ARGV[2]),
  'outcome', 'deadline', 'results', '"its deadline passed before it began"')
unqueue(KEYS[3], KEYS[4], KEYS[5], id, s)
redis.call('HDEL', KEYS[6], id)
redis.call('ZREM', KEYS[8], id)
if s.status == 'pending' then move_count(KEYS[2], 'pending', 'blocked') end
redis.call('HINCRBY', KEYS[2], 'ended:blocked', 1)
s.status, s.outcome, s.updated = 'blocked', 'deadline', ARGV[1]
note(s, ARGV[1], 'blocked', '', 'its deadline passed before it began')
write_state(KEYS[1], id, s)
if s.dependents ~= '' then redis.call('SADD', KEYS[7], id) end
return {1}
