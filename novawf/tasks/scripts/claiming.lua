-- Second prefix, of claim and finish: takes the next task for a Nova.
-- Shared KEYS 1 gate 2 identity 3 state 4 spec 5 history 6 counts 7 ready 8 pinned 9 delayed
--      10 leases 11 workflow state of the Nova 12 progress stream of the Nova
-- Shared ARGV 1 now 2 iso time 3 nova 4 nova epoch 5 claim number 6 lease ms 7 state TTL s
--      8 how many arguments of workflow state follow (field, value, …)
local unpack = unpack or table.unpack
local k = {state = KEYS[3], counts = KEYS[6], ready = KEYS[7], pinned = KEYS[8], delayed = KEYS[9]}
local now, nova = ARGV[1], ARGV[3]
local rest = 9 + tonumber(ARGV[8])  -- the first argument after the workflow state

-- Counters are collected and written once: each write of its own costs a call and a line of the log.
local bumped, bumps = {}, {}
local function bump(field, by)
  if not bumps[field] then
    bumped[#bumped + 1] = field
    bumps[field] = 0
  end
  bumps[field] = bumps[field] + by
end

local function write_counts()
  if #bumped == 0 then return end
  local values = redis.call('HMGET', k.counts, unpack(bumped))
  local pairs_ = {}
  for i = 1, #bumped do
    pairs_[2 * i - 1] = bumped[i]
    pairs_[2 * i] = int(tonumber(values[i] or '0') + bumps[bumped[i]])
  end
  redis.call('HSET', k.counts, unpack(pairs_))
end

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

local function progress_record(id, s, spec_json, update, percentage)
  local spec = cjson.decode(spec_json)
  redis.call('XADD', KEYS[12], '*', 'task_id', id, 'title', spec['title'] or '',
    'description', spec['description'] or '', 'status', s.status,
    'priority', spec['priority'] or 'medium', 'assignee', nova,
    'created_at', s.created, 'updated_at', ARGV[2],
    'update', update, 'progress_percentage', percentage)
end

-- The task that this very claim took, when its reply was lost and the task is still in hand. The
-- number alone is not enough: every life of a Nova counts its claims from 1.
local function claimed_before()
  local last = redis.call('HGET', KEYS[2], 'claim:' .. nova)
  if not last then return nil end
  local number, id, epoch = string.match(last, '^(%d+)|([^|]*)|(%d+)$')
  if number ~= ARGV[5] then return nil end
  local s = read_state(k.state, id)
  if s and s.status == 'in_progress' and s.epoch == epoch and s.owner == nova
      and s.nova_epoch == ARGV[4] then
    return id, s
  end
  return nil
end

-- The gate was shut before the lost reply came again: the task may not start and goes back, at no
-- cost. One whose cancellation was asked for is left to its lease, whose end blocks it.
local function hand_back(id, s)
  if s.cancel ~= '' then return end
  redis.call('ZREM', KEYS[10], id)
  s.status, s.owner, s.updated = 'pending', '', now
  s.limit = int(tonumber(s.limit) + 1)
  make_ready(k.ready, k.pinned, id, s, now)
  write_state(k.state, id, s)
  move_count(k.counts, 'in_progress', 'pending')
  redis.call('HINCRBY', k.counts, 'ended:requeue', 1)
  redis.call('HSET', KEYS[11], 'task_in_hand', '')
  note(KEYS[5], id, now, 'requeue', nova, s.attempt, 'not begun')
  progress_record(id, s, redis.call('HGET', KEYS[4], id), 'handed back, not begun', '')
end

-- Why nothing may start, as the reply of a claim, or nil.
local function shut()
  local gate = redis.call('HMGET', KEYS[1], 'stop', 'stop_reason', 'valid_until', 'verdict',
    'reason', 'paused', 'paused:' .. nova)
  if gate[1] == '1' then return {-1, gate[2] or ''} end
  if not gate[3] or tonumber(gate[3]) < tonumber(now) then
    return {-2, 'the safety verdict has expired'}
  end
  if gate[4] ~= 'safe' then return {-2, gate[5] or 'unsafe'} end
  if gate[6] == '1' then return {-3, 'the fleet is paused'} end
  if gate[7] == '1' then return {-3, 'this Nova is paused'} end
  return nil
end

-- {1, id, epoch, attempt, limit, ready ms, created ISO, spec JSON} claimed;
-- {0, due ms, expired} nothing: the next due time or lease expiry (0 none), whether leases expired;
-- {-1, reason} stopped; {-2, reason} no valid safety verdict; {-3, reason} paused: then nothing is
-- in hand either, a task whose claim had lost its reply included.
-- Nothing starts without a valid verdict: safety fails closed here, in the claim itself.
local function claim_next()
  local refusal = shut()
  local before, held = claimed_before()
  if refusal then
    if before then hand_back(before, held) end
    return refusal
  end
  if before then return claimed(before, held) end
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
  bump('pending', -1)
  bump('in_progress', 1)
  redis.call('ZADD', KEYS[10], int(tonumber(now) + tonumber(ARGV[6])), id)
  redis.call('HSET', KEYS[2], 'claim:' .. nova, ARGV[5] .. '|' .. id .. '|' .. s.epoch)
  redis.call('HSET', KEYS[11], 'task_in_hand', id)
  note(KEYS[5], id, now, 'claimed', nova, s.attempt, '')
  local reply = claimed(id, s)
  progress_record(id, s, reply[8], 'attempt ' .. s.attempt .. ' started', '0')
  return reply
end
