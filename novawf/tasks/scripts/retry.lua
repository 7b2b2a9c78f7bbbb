-- Takes a blocked task up again: because its user says so, because what it waited for was taken up
-- again (`dependency`), or because it was approved (`awaiting_approval`).
-- KEYS 1 state 2 counts 3 ready 4 pinned 5 waiting 6 cascade 7 wake list of the target or of any
--      8 todo stream of the target or `fleet` 9 dependents 10 delayed 11 deadlines
-- ARGV 1 now 2 iso time 3 task id 4 attempts allowed 5 the outcome it must have, or '' for any but
--      `awaiting_approval` 6 due ms or 0 7 title 8 description 9 priority 10 why, for the history,
--      11 '1' if it may start only once approved, 12… ids it comes after
-- Reply {1, status} pending again; {0, status, outcome} not blocked, or not in that way; {-1, id} a
--      dependency is still blocked: retry that first; {-2} its deadline has passed; {-3} it was
--      never approved. One that is taken up because of its dependency is left to its
--      deadline. It joins the cascade, which takes up again
--      what was blocked by it: also when whoever called this dies now.
local id = ARGV[3]
local s = read_state(KEYS[1], id)
if not s then return {0, '', ''} end
local asked = ARGV[5] == '' and s.outcome ~= 'awaiting_approval' or s.outcome == ARGV[5]
if s.status ~= 'blocked' or not asked then return {0, s.status, s.outcome} end
local late = s.deadline ~= '' and tonumber(s.deadline) <= tonumber(ARGV[1])
if late and ARGV[5] ~= 'dependency' then return {-2, ''} end
if ARGV[11] == '1' and ARGV[5] ~= 'awaiting_approval'
    and s.approved == '' then
  return {-3, ''}
end
local waits = {}
for i = 12, #ARGV do
  local dependency = read_state(KEYS[1], ARGV[i])
  if dependency and is_dead(dependency) then return {-1, ARGV[i]} end
  if dependency and dependency.status ~= 'completed' then waits[#waits + 1] = ARGV[i] end
end
redis.call('XADD', KEYS[8], '*', 'task_id', id, 'title', ARGV[7], 'description', ARGV[8],
  'status', 'pending', 'priority', ARGV[9], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', record_time(s, ARGV[2]), 'update', ARGV[10])
for i = 1, #waits do
  local list = redis.call('HGET', KEYS[9], waits[i]) or ''
  if not string.find(',' .. list .. ',', ',' .. id .. ',', 1, true) then
    redis.call('HSET', KEYS[9], waits[i], list == '' and id or (list .. ',' .. id))
    local dependency = read_state(KEYS[1], waits[i])
    dependency.dependents = '1'
    write_state(KEYS[1], waits[i], dependency)
  end
end
if ARGV[5] == 'awaiting_approval' then s.approved = '1' end
s.status, s.outcome, s.updated, s.ready, s.cancel = 'pending', '', ARGV[1], ARGV[6], ''
s.limit = int(tonumber(s.attempt) + tonumber(ARGV[4]))
if #waits > 0 then
  redis.call('HSET', KEYS[5], id, #waits)
else
  redis.call('HDEL', KEYS[5], id)
  if tonumber(s.ready) > tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[10], s.ready, id)
  else
    make_ready(KEYS[3], KEYS[4], id, s, ARGV[1])
  end
  push_token(KEYS[7])
end
if s.dependents ~= '' then redis.call('SADD', KEYS[6], id) else redis.call('SREM', KEYS[6], id) end
if s.deadline ~= '' then redis.call('ZADD', KEYS[11], s.deadline, id) end
note(s, ARGV[1], 'retried', '', ARGV[10])
write_state(KEYS[1], id, s)
move_count(KEYS[2], 'blocked', 'pending')
redis.call('HINCRBY', KEYS[2], 'retried', 1)
return {1, 'pending', ''}
