-- Admits one task, once.
-- KEYS 1 spec 2 state 3 sequence 4 requests 5 counts 6 order 7 ready 8 pinned 9 delayed 10 waiting
--      11 dependents 12 cascade 13 deadlines 14 wake list of the target or of any
--      15 todo stream of the target or `fleet`
-- ARGV 1 now 2 unix s 3 iso time 4 request id 5 dedupe key or '' 6 id prefix 7 spec JSON
--      8 limit of attempts 9 tier ms 10 target or '' 11 due ms or 0 12 deadline ms or ''
--      13 '1' if it waits for approval 14 title 15 description 16 priority, 17… ids it comes after
-- Reply {1, id} admitted; {0, id} already there (same request or dedupe key); {-1, id} unknown id
--      among those it comes after. A repeat with the same request id changes nothing.
local known = redis.call('HGET', KEYS[4], ARGV[4])
if known then return {0, known} end
if ARGV[5] ~= '' then
  known = redis.call('HGET', KEYS[4], 'dedupe:' .. ARGV[5])
  if known then return {0, known} end
end
local now, target, waits = ARGV[1], ARGV[10], {}
for i = 17, #ARGV do
  local dependency = read_state(KEYS[2], ARGV[i])
  if not dependency then return {-1, ARGV[i]} end
  if dependency.status ~= 'completed' then waits[#waits + 1] = {ARGV[i], dependency} end
end
local sequence = redis.call('INCR', KEYS[3])
local id = ARGV[6] .. '-' .. ARGV[2] .. '-' .. string.format('%06x', sequence % 16777216)
local status = ARGV[13] == '1' and 'blocked' or 'pending'
redis.call('XADD', KEYS[15], '*', 'task_id', id, 'title', ARGV[14], 'description', ARGV[15],
  'status', status, 'priority', ARGV[16], 'assignee', target == '' and 'fleet' or target,
  'created_at', ARGV[3], 'updated_at', ARGV[3])
redis.call('HSET', KEYS[4], ARGV[4], id)
if ARGV[5] ~= '' then redis.call('HSET', KEYS[4], 'dedupe:' .. ARGV[5], id) end
redis.call('HSET', KEYS[1], id, ARGV[7])
redis.call('ZADD', KEYS[6], now, id)
redis.call('HINCRBY', KEYS[5], status, 1)
redis.call('HINCRBY', KEYS[5], 'admitted', 1)
local s = {status = status, outcome = status == 'blocked' and 'awaiting_approval' or '',
  attempt = '0', limit = ARGV[8], epoch = '0', owner = '', nova_epoch = '0', target = target,
  tier = ARGV[9], created = ARGV[3], updated = now, ready = ARGV[11], cancel = '',
  deadline = ARGV[12], dependents = '', approved = '', history = ''}
if s.deadline ~= '' then redis.call('ZADD', KEYS[13], s.deadline, id) end
for i = 1, #waits do
  local other, dependency = waits[i][1], waits[i][2]
  local list = redis.call('HGET', KEYS[11], other)
  redis.call('HSET', KEYS[11], other, list and (list .. ',' .. id) or id)
  if dependency.dependents == '' then
    dependency.dependents = '1'
    write_state(KEYS[2], other, dependency)
  end
  if is_dead(dependency) then redis.call('SADD', KEYS[12], other) end
end
if #waits > 0 then
  redis.call('HSET', KEYS[10], id, #waits)
elseif status == 'pending' then
  if tonumber(ARGV[11]) > tonumber(now) then
    redis.call('ZADD', KEYS[9], ARGV[11], id)
  else
    make_ready(KEYS[7], KEYS[8], id, s, now)
  end
  push_token(KEYS[14])
end
note(s, now, 'created', '', s.outcome)
write_state(KEYS[2], id, s)
return {1, id}
