-- Carries the fate of a dependency to one task that waits for it.
-- KEYS 1 state 2 counts 3 cascade 4 completed stream of the target or `fleet`
-- ARGV 1 now 2 iso time 3 task id 4 the dependency's id 5 title 6 description 7 priority
-- Reply {1} blocked now; {0} nothing to do: the dependency is not blocked (any more), or the task
--      does not wait. A repeat changes nothing. The task keeps its count of dependencies, so that
--      a retry of the dependency can take it up again. One that waits for approval is left alone:
--      approving it is refused while a dependency is blocked.
local blocker = read_state(KEYS[1], ARGV[4])
local s = read_state(KEYS[1], ARGV[3])
if not s or s.status ~= 'pending' or not blocker or not is_dead(blocker) then return {0} end
redis.call('XADD', KEYS[4], '*', 'task_id', ARGV[3], 'title', ARGV[5], 'description', ARGV[6],
  'status', 'blocked', 'priority', ARGV[7], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', record_time(s, ARGV[2]),
  'outcome', 'dependency', 'results', '"blocked by ' .. ARGV[4] .. '"')
s.status, s.outcome, s.updated = 'blocked', 'dependency', ARGV[1]
note(s, ARGV[1], 'blocked', '', 'dependency ' .. ARGV[4])
write_state(KEYS[1], ARGV[3], s)
move_count(KEYS[2], 'pending', 'blocked')
redis.call('HINCRBY', KEYS[2], 'ended:blocked', 1)
if s.dependents ~= '' then redis.call('SADD', KEYS[3], ARGV[3]) end
return {1}
