-- Takes a task from an owner that died or whose lease expired.
-- KEYS 1 state 2 counts 3 ready 4 pinned 5 leases 6 cascade 7 wake list of the target or of any
--      8 progress stream of the owner 9 completed stream of the owner
-- ARGV 1 now 2 iso time 3 task id 4 task epoch 5 cause 6 '1' only if the lease has expired
--      7 title 8 description 9 priority 10 how many Novas it may kill: this one died while it ran
--      the task and nothing else (0: it did not, or that is nobody's fault)
-- Reply {1, status, outcome} released: pending again, or blocked when its attempts are used up, or
--      quarantined when it has killed its Novas since a person last looked at it;
--      {0, status} nothing to do: not held under that epoch, or the lease is alive.
local id = ARGV[3]
local s = read_state(KEYS[1], id)
if not s or s.status ~= 'in_progress' or s.epoch ~= ARGV[4] then
  return {0, s and s.status or '', ''}
end
if ARGV[6] == '1' then
  local expiry = redis.call('ZSCORE', KEYS[5], id)
  if expiry and tonumber(expiry) >= tonumber(ARGV[1]) then return {0, 'in_progress', ''} end
end
local owner, detail, most = s.owner, ARGV[5], tonumber(ARGV[10])
local kills = 0
if most > 0 then
  detail, kills = 'its Nova died: ' .. detail, 1
  local since = string.match(s.history, '.*|retried|(.*)$') or s.history
  for _ in string.gmatch(since, '|released|[^|\n]*|[^|\n]*|its Nova died') do kills = kills + 1 end
end
s.status = 'pending'
if s.cancel ~= '' then
  s.status, s.outcome = 'blocked', 'cancelled'
elseif most > 0 and kills >= most then
  s.status, s.outcome = 'blocked', 'quarantined'
  detail = 'it ended ' .. kills .. ' Novas, the last: ' .. ARGV[5]
elseif tonumber(s.attempt) >= tonumber(s.limit) then
  s.status, s.outcome = 'blocked', 'failed'
end
local ended = s.status == 'blocked'
redis.call('XADD', ended and KEYS[9] or KEYS[8], '*', 'task_id', id, 'title', ARGV[7],
  'description', ARGV[8], 'status', s.status, 'priority', ARGV[9], 'assignee', owner,
  'created_at', s.created, 'updated_at', record_time(s, ARGV[2]),
  ended and 'outcome' or 'update', ended and s.outcome or detail,
  ended and 'results' or 'progress_percentage', ended and cjson.encode(detail) or '')
redis.call('ZREM', KEYS[5], id)
s.owner, s.updated, s.cancel = '', ARGV[1], ''
-- The epoch grows here too: the old owner's finish under the old one is refused from now on.
s.epoch = int(tonumber(s.epoch) + 1)
if ended then
  if s.dependents ~= '' then redis.call('SADD', KEYS[6], id) end
else
  make_ready(KEYS[3], KEYS[4], id, s, ARGV[1])
  push_token(KEYS[7])
end
note(s, ARGV[1], ended and 'blocked' or 'released', owner, detail)
write_state(KEYS[1], id, s)
move_count(KEYS[2], 'in_progress', s.status)
redis.call('HINCRBY', KEYS[2], 'ended:lost', 1)
redis.call('HINCRBY', KEYS[2], 'nova:' .. owner .. ':lost', 1)
return {1, s.status, s.outcome}
