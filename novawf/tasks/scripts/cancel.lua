-- Cancels a task: one that waits is blocked at once; one in hand is marked and its owner told.
-- KEYS 1 state 2 counts 3 ready 4 pinned 5 delayed 6 waiting 7 cascade
--      8 completed stream of the target or `fleet` 9 inbox of the expected owner (or of `fleet`)
-- ARGV 1 now 2 iso time 3 task id 4 expected owner or '' 5 title 6 description 7 priority
-- Reply {1, status} blocked now; {2, owner} the owner was told; {3, owner} another owner holds it:
--      call again with that one; {0, status} ended before. A repeat changes nothing.
local id = ARGV[3]
local s = read_state(KEYS[1], id)
if not s then return {0, ''} end
if s.status == 'in_progress' then
  if s.owner ~= ARGV[4] then return {3, s.owner} end
  s.cancel = '1'
  write_state(KEYS[1], id, s)
  redis.call('RPUSH', KEYS[9], cjson.encode({op = 'cancel', task = id, epoch = s.epoch}))
  redis.call('LTRIM', KEYS[9], -256, -1)
  return {2, s.owner}
end
local before = s.status
if before ~= 'pending' and s.outcome ~= 'awaiting_approval' then return {0, before} end
redis.call('XADD', KEYS[8], '*', 'task_id', id, 'title', ARGV[5], 'description', ARGV[6],
  'status', 'blocked', 'priority', ARGV[7], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', record_time(s, ARGV[2]),
  'outcome', 'cancelled', 'results', '"cancelled"')
unqueue(KEYS[3], KEYS[4], KEYS[5], id, s)
redis.call('HDEL', KEYS[6], id)
s.status, s.outcome, s.updated = 'blocked', 'cancelled', ARGV[1]
note(s, ARGV[1], 'blocked', '', 'cancelled')
write_state(KEYS[1], id, s)
if before == 'pending' then move_count(KEYS[2], 'pending', 'blocked') end
redis.call('HINCRBY', KEYS[2], 'ended:blocked', 1)
if s.dependents ~= '' then redis.call('SADD', KEYS[7], id) end
return {1, 'blocked'}
