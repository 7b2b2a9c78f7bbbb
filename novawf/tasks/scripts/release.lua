-- Takes a task from an owner that died or whose lease expired.
-- KEYS 1 state 2 history 3 counts 4 ready 5 pinned 6 leases 7 cascade 8 wake list of the target
--      or of any 9 progress stream of the owner 10 completed stream of the owner
-- ARGV 1 now 2 iso time 3 task id 4 task epoch 5 cause 6 '1' only if the lease has expired
--      7 title 8 description 9 priority
-- Reply {1, status} released: pending again, or blocked when its attempts are used up;
--      {0, status} nothing to do: not held under that epoch, or the lease is alive.
local id = ARGV[3]
local s = read_state(KEYS[1], id)
if not s or s.status ~= 'in_progress' or s.epoch ~= ARGV[4] then
  return {0, s and s.status or ''}
end
if ARGV[6] == '1' then
  local expiry = redis.call('ZSCORE', KEYS[6], id)
  if expiry and tonumber(expiry) >= tonumber(ARGV[1]) then return {0, 'in_progress'} end
end
local owner, stream = s.owner, KEYS[9]
redis.call('ZREM', KEYS[6], id)
s.owner, s.updated = '', ARGV[1]
-- The epoch grows here too: the old owner's finish under the old one is refused from now on.
s.epoch = int(tonumber(s.epoch) + 1)
if s.cancel ~= '' then
  s.status, s.outcome, stream = 'blocked', 'cancelled', KEYS[10]
elseif tonumber(s.attempt) >= tonumber(s.limit) then
  s.status, s.outcome, stream = 'blocked', 'failed', KEYS[10]
else
  s.status = 'pending'
  make_ready(KEYS[4], KEYS[5], id, s, ARGV[1])
  push_token(KEYS[8])
end
s.cancel = ''
if s.status == 'blocked' then redis.call('SADD', KEYS[7], id) end
write_state(KEYS[1], id, s)
move_count(KEYS[3], 'in_progress', s.status)
redis.call('HINCRBY', KEYS[3], 'ended:lost', 1)
note(KEYS[2], id, ARGV[1], s.status == 'pending' and 'released' or 'blocked', owner, s.attempt,
  ARGV[5])
redis.call('XADD', stream, '*', 'task_id', id, 'title', ARGV[7], 'description', ARGV[8],
  'status', s.status, 'priority', ARGV[9], 'assignee', owner, 'created_at', s.created,
  'updated_at', ARGV[2], 'outcome', s.outcome, 'update', ARGV[5])
return {1, s.status}
