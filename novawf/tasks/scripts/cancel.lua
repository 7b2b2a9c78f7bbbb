-- Cancels a task: one that waits is blocked at once; one in hand is marked and its owner told.
-- KEYS 1 state 2 history 3 counts 4 ready 5 pinned 6 delayed 7 waiting 8 cascade
--      9 completed stream of the target or `fleet` 10 inbox of the expected owner (or of `fleet`)
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
  redis.call('RPUSH', KEYS[10], cjson.encode({op = 'cancel', task = id, epoch = s.epoch}))
  redis.call('LTRIM', KEYS[10], -256, -1)
  return {2, s.owner}
end
if s.status ~= 'pending' then return {0, s.status} end
unqueue(KEYS[4], KEYS[5], KEYS[6], id, s)
redis.call('HDEL', KEYS[7], id)
s.status, s.outcome, s.updated = 'blocked', 'cancelled', ARGV[1]
write_state(KEYS[1], id, s)
move_count(KEYS[3], 'pending', 'blocked')
redis.call('HINCRBY', KEYS[3], 'ended:blocked', 1)
redis.call('SADD', KEYS[8], id)
note(KEYS[2], id, ARGV[1], 'blocked', '', s.attempt, 'cancelled')
redis.call('XADD', KEYS[9], '*', 'task_id', id, 'title', ARGV[5], 'description', ARGV[6],
  'status', 'blocked', 'priority', ARGV[7], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', ARGV[2], 'outcome', 'cancelled', 'update', 'cancelled')
return {1, 'blocked'}
