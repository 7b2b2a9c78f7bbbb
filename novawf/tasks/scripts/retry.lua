-- Takes a blocked task up again: with a fresh allowance of attempts, or (revive) because what it
-- waited for was taken up again.
-- KEYS 1 state 2 history 3 counts 4 ready 5 pinned 6 waiting 7 cascade 8 wake list of the target
--      or of any 9 todo stream of the target or `fleet` 10 dependents 11 delayed
-- ARGV 1 now 2 iso time 3 task id 4 attempts allowed 5 '1' only if its outcome is `dependency`
--      6 due ms or 0 7 title 8 description 9 priority, 10… ids it comes after
-- Reply {1, status} pending again; {0, status} not blocked; {-1, id} a dependency is still blocked:
--      retry that first.
local id = ARGV[3]
local s = read_state(KEYS[1], id)
if not s or s.status ~= 'blocked' or (ARGV[5] == '1' and s.outcome ~= 'dependency') then
  return {0, s and s.status or ''}
end
local waits = 0
for i = 10, #ARGV do
  local dependency = read_state(KEYS[1], ARGV[i])
  if dependency and dependency.status == 'blocked' then return {-1, ARGV[i]} end
  if dependency and dependency.status ~= 'completed' then
    waits = waits + 1
    local list = redis.call('HGET', KEYS[10], ARGV[i]) or ''
    if not string.find(',' .. list .. ',', ',' .. id .. ',', 1, true) then
      redis.call('HSET', KEYS[10], ARGV[i], list == '' and id or (list .. ',' .. id))
    end
  end
end
s.status, s.outcome, s.updated, s.ready, s.cancel = 'pending', '', ARGV[1], ARGV[6], ''
s.limit = int(tonumber(s.attempt) + tonumber(ARGV[4]))
if waits > 0 then
  redis.call('HSET', KEYS[6], id, waits)
else
  redis.call('HDEL', KEYS[6], id)
  if tonumber(s.ready) > tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[11], s.ready, id)
  else
    make_ready(KEYS[4], KEYS[5], id, s, ARGV[1])
  end
  push_token(KEYS[8])
end
redis.call('SREM', KEYS[7], id)
write_state(KEYS[1], id, s)
move_count(KEYS[3], 'blocked', 'pending')
note(KEYS[2], id, ARGV[1], 'retried', '', s.attempt, '')
redis.call('XADD', KEYS[9], '*', 'task_id', id, 'title', ARGV[7], 'description', ARGV[8],
  'status', 'pending', 'priority', ARGV[9], 'assignee', s.target == '' and 'fleet' or s.target,
  'created_at', s.created, 'updated_at', ARGV[2], 'update', 'taken up again')
return {1, 'pending'}
