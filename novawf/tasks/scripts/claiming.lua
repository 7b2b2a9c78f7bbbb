-- Second prefix, of claim and finish: takes the next task for a Nova.
-- Shared KEYS 1 gate 2 identity 3 state 4 spec 5 history 6 counts 7 ready 8 pinned 9 delayed
--      10 leases 11 workflow state of the Nova 12 progress stream of the Nova
-- Shared ARGV 1 now 2 iso time 3 nova 4 nova epoch 5 claim number 6 lease ms 7 state TTL s
--      8 how many arguments of workflow state follow (field, value, …)
local unpack = unpack or table.unpack
local k = {state = KEYS[3], counts = KEYS[6], ready = KEYS[7], pinned = KEYS[8], delayed = KEYS[9]}
local now, nova = ARGV[1], ARGV[3]
local rest = 9 + tonumber(ARGV[8])  -- the first argument after the workflow state

local function is_owner() return redis.call('HGET', KEYS[2], nova) == ARGV[4] end

local function persist_workflow()
  if rest > 9 then
    redis.call('HSET', KEYS[11], unpack(ARGV, 9, rest - 1))
    redis.call('EXPIRE', KEYS[11], ARGV[7])
  end
end

local function claimed(id, s)
  return {1, id, s.epoch, s.attempt, s.limit, s.ready, s.created, redis.call('HGET', KEYS[4], id)}
end

-- {1, id, epoch, attempt, limit, ready ms, created ISO, spec JSON} claimed;
-- {0, due ms, expired} nothing: the next due time or lease expiry (0 none), whether leases expired;
-- {-1, reason} stopped; {-2, reason} no valid safety verdict; {-3, reason} paused.
-- Nothing starts without a valid verdict: safety fails closed here, in the claim itself.
local function claim_next()
  local gate = redis.call('HMGET', KEYS[1], 'stop', 'stop_reason', 'valid_until', 'verdict',
    'reason', 'paused', 'paused:' .. nova)
  if gate[1] == '1' then return {-1, gate[2] or ''} end
  if not gate[3] or tonumber(gate[3]) < tonumber(now) then
    return {-2, 'the safety verdict has expired'}
  end
  if gate[4] ~= 'safe' then return {-2, gate[5] or 'unsafe'} end
  if gate[6] == '1' then return {-3, 'the fleet is paused'} end
  if gate[7] == '1' then return {-3, 'this Nova is paused'} end

  local last = redis.call('HGET', KEYS[2], 'claim:' .. nova)
  if last then  -- the reply of this very claim was lost: give the same task again
    local number, id, epoch = string.match(last, '^(%d+)|([^|]*)|(%d+)$')
    if number == ARGV[5] then
      local s = read_state(k.state, id)
      if s and s.status == 'in_progress' and s.epoch == epoch and s.owner == nova then
        return claimed(id, s)
      end
    end
  end
  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now, 'LIMIT', 0, 16)
  for i = 1, #due do
    redis.call('ZREM', k.delayed, due[i])
    local s = read_state(k.state, due[i])
    if s and s.status == 'pending' then
      make_ready(k.ready, k.pinned, due[i], s, s.ready)
    end
  end

  local head = redis.call('ZRANGE', k.ready, 0, 0, 'WITHSCORES')
  local mine = redis.call('ZRANGEBYLEX', k.pinned, '[' .. nova .. '|', '(' .. nova .. '}',
    'LIMIT', 0, 1)
  local id = head[1]
  if mine[1] then
    local score, pinned_id = string.match(mine[1], '^[^|]*|(%d+)|(.+)$')
    if not id or tonumber(score) <= tonumber(head[2]) then
      id = pinned_id
      redis.call('ZREM', k.pinned, mine[1])
    else
      redis.call('ZREM', k.ready, id)
    end
  elseif id then
    redis.call('ZREM', k.ready, id)
  else
    local later = redis.call('ZRANGE', k.delayed, 0, 0, 'WITHSCORES')
    local lease = redis.call('ZRANGE', KEYS[10], 0, 0, 'WITHSCORES')
    local next_due = tonumber(later[2] or 0)
    local expiry = tonumber(lease[2] or 0)
    if expiry > 0 and (next_due == 0 or expiry < next_due) then next_due = expiry end
    return {0, int(next_due), (expiry > 0 and expiry < tonumber(now)) and 1 or 0}
  end

  local s = read_state(k.state, id)
  if not s or s.status ~= 'pending' then
    return {0, now, 0}  -- a leftover that names no pending task: dropped, ask again
  end
  s.status, s.owner, s.nova_epoch, s.updated = 'in_progress', nova, ARGV[4], now
  s.attempt = int(tonumber(s.attempt) + 1)
  s.epoch = int(tonumber(s.epoch) + 1)
  write_state(k.state, id, s)
  move_count(k.counts, 'pending', 'in_progress')
  redis.call('ZADD', KEYS[10], int(tonumber(now) + tonumber(ARGV[6])), id)
  redis.call('HSET', KEYS[2], 'claim:' .. nova, ARGV[5] .. '|' .. id .. '|' .. s.epoch)
  redis.call('HSET', KEYS[11], 'task_in_hand', id)
  note(KEYS[5], id, now, 'claimed', nova, s.attempt, '')
  local reply = claimed(id, s)
  local spec = cjson.decode(reply[8])
  redis.call('XADD', KEYS[12], '*', 'task_id', id, 'title', spec['title'] or '',
    'description', spec['description'] or '', 'status', 'in_progress',
    'priority', spec['priority'] or 'medium', 'assignee', nova,
    'created_at', s.created, 'updated_at', ARGV[2],
    'update', 'attempt ' .. s.attempt .. ' started', 'progress_percentage', '0')
  return reply
end
