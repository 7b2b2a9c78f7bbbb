-- Admits one task, once.
-- KEYS 1 spec 2 state 3 history 4 sequence 5 requests 6 counts 7 order 8 ready 9 pinned
--      10 delayed 11 waiting 12 dependents 13 cascade 14 wake list of the target or of any
--      15 todo stream of the target or `fleet`
-- ARGV 1 now 2 unix s 3 iso time 4 request id 5 dedupe key or '' 6 id prefix 7 spec JSON
--      8 limit of attempts 9 tier ms 10 target or '' 11 due ms or 0 12 title 13 description
--      14 priority, 15… ids it comes after
-- Reply {1, id} admitted; {0, id} already there (same request or dedupe key); {-1, id} unknown id
--      among those it comes after. A repeat with the same request id changes nothing.
local known = redis.call('HGET', KEYS[5], ARGV[4])
if known then return {0, known} end
if ARGV[5] ~= '' then
  known = redis.call('HGET', KEYS[5], 'dedupe:' .. ARGV[5])
  if known then return {0, known} end
end
local now, target = ARGV[1], ARGV[10]
local waits = {}
for i = 15, #ARGV do
  local dependency = read_state(KEYS[2], ARGV[i])
  if not dependency then return {-1, ARGV[i]} end
  if dependency.status ~= 'completed' then
    waits[#waits + 1] = ARGV[i]
    if dependency.status == 'blocked' then redis.call('SADD', KEYS[13], ARGV[i]) end
  end
end
local sequence = redis.call('INCR', KEYS[4])
local id = ARGV[6] .. '-' .. ARGV[2] .. '-' .. string.format('%06x', sequence % 16777216)
redis.call('HSET', KEYS[5], ARGV[4], id)
if ARGV[5] ~= '' then redis.call('HSET', KEYS[5], 'dedupe:' .. ARGV[5], id) end
redis.call('HSET', KEYS[1], id, ARGV[7])
redis.call('ZADD', KEYS[7], now, id)
redis.call('HINCRBY', KEYS[6], 'pending', 1)
redis.call('HINCRBY', KEYS[6], 'admitted', 1)
local s = {status = 'pending', outcome = '', attempt = '0', limit = ARGV[8], epoch = '0',
  owner = '', nova_epoch = '0', target = target, tier = ARGV[9], created = ARGV[3], updated = now,
  ready = ARGV[11], cancel = ''}
if #waits > 0 then
  redis.call('HSET', KEYS[11], id, #waits)
  for i = 1, #waits do
    local list = redis.call('HGET', KEYS[12], waits[i])
    redis.call('HSET', KEYS[12], waits[i], list and (list .. ',' .. id) or id)
  end
elseif tonumber(ARGV[11]) > tonumber(now) then
  redis.call('ZADD', KEYS[10], ARGV[11], id)
  push_token(KEYS[14])
else
  make_ready(KEYS[8], KEYS[9], id, s, now)
  push_token(KEYS[14])
end
write_state(KEYS[2], id, s)
note(KEYS[3], id, now, 'created', '', '0', '')
redis.call('XADD', KEYS[15], '*', 'task_id', id, 'title', ARGV[12], 'description', ARGV[13],
  'status', 'pending', 'priority', ARGV[14], 'assignee', target == '' and 'fleet' or target,
  'created_at', ARGV[3], 'updated_at', ARGV[3])
return {1, id}
