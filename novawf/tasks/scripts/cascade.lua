-- Carries the fate of a dependency to one task that waits for it.
-- KEYS 1 state 2 history 3 counts 4 cascade 5 completed stream of the target or `fleet`
-- ARGV 1 now 2 iso time 3 task id 4 the dependency's id 5 title 6 description 7 priority
-- Reply {1} blocked now; {0} nothing to do: the dependency is not blocked (any more), or the task
--      does not wait. A repeat changes nothing. The task keeps its count of dependencies, so that
--      a retry of the dependency can take it up again.
local blocker = read_state(KEYS[1], ARGV[4])
local s = read_state(KEYS[1], ARGV[3])
if not s or s.status ~= 'pending' or not blocker or blocker.status ~= 'blocked' then return {0} end
s.status, s.outcome, s.updated = 'blocked', 'dependency', ARGV[1]
write_state(KEYS[1], ARGV[3], s)
move_count(KEYS[3], 'pending', 'blocked')
redis.call('HINCRBY', KEYS[3], 'ended:blocked', 1)
redis.call('SADD', KEYS[4], ARGV[3])
note(KEYS[2], ARGV[3], ARGV[1], 'blocked', '', s.attempt, 'dependency ' .. ARGV[4])
redis.call('XADD', KEYS[5], '*', 'task_id', ARGV[3], 'title', ARGV[5], 'description', ARGV[6],
  'status', 'blocked', 'priority', ARGV[7], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', ARGV[2], 'outcome', 'dependency',
  'update', 'blocked by ' .. ARGV[4])
return {1}
