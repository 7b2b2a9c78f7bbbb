-- Second prefix, of claim and finish: takes the next task for a Nova.
-- Shared KEYS 1 gate 2 identity 3 state 4 spec 5 counts 6 ready 7 pinned 8 delayed 9 leases
--      10 workflow state of the Nova 11 progress stream of the Nova
-- Shared ARGV 1 now 2 iso time 3 nova 4 nova epoch 5 claim number 6 lease ms
--      7 how many arguments of workflow state follow (field, value, …)
-- What changes is collected and written at the end, one call for each key: a call costs as much as
-- what it does, and a line of the append-only file besides. Records are added first: a stream that
-- cannot be written (a key of another type) then changes nothing else.
local unpack = unpack or table.unpack
local k = {state = KEYS[3], counts = KEYS[5], ready = KEYS[6], pinned = KEYS[7], delayed = KEYS[8]}
local now, iso, nova = ARGV[1], ARGV[2], ARGV[3]
local waited = false  -- whether this claim waited behind a blocking read (claim.lua)
local rest = 8 + tonumber(ARGV[7])  -- the first argument after the workflow state

local bumped, bumps = {}, {}
local function bump(field, by)
  if not bumps[field] then
    bumped[#bumped + 1] = field
    bumps[field] = 0
  end
  bumps[field] = bumps[field] + by
end

-- A latency, by its bucket ('' not measured) and its microseconds.
local function measure(what, bucket, microseconds)
  if bucket == '' then return end
  bump(what .. ':' .. bucket, 1)
  bump(what .. ':sum', tonumber(microseconds))
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

local changed = {}
local function get_state(id)
  if changed[id] then return changed[id] end
  return read_state(k.state, id)
end

local function put_state(id, s) changed[id] = s end

local function write_states()
  local pairs_ = {}
  for id, s in pairs(changed) do
    pairs_[#pairs_ + 1] = id
    pairs_[#pairs_ + 1] = pack_state(s)
  end
  if #pairs_ > 0 then redis.call('HSET', k.state, unpack(pairs_)) end
end

local identity = redis.call('HMGET', KEYS[2], nova, 'claim:' .. nova)
local function is_owner() return identity[1] == ARGV[4] end

-- No TTL is set here: the next heartbeat does, within the idle wait.
local workflow = {}
local function persist_workflow()
  for i = 8, rest - 1 do workflow[#workflow + 1] = ARGV[i] end
end

local function in_hand(id)
  workflow[#workflow + 1] = 'task_in_hand'
  workflow[#workflow + 1] = id
end

local function write_all()
  write_states()
  write_counts()
  -- It is no truth about tasks: under a key of another type it is not kept, and nothing else fails.
  if #workflow > 0 then redis.pcall('HSET', KEYS[10], unpack(workflow)) end
end

local function claimed(id, s, spec_json)
  return {id, s.epoch, s.attempt, s.limit, s.ready, s.created, s.deadline, s.updated, spec_json}
end

-- Returns what is wrong with the stream, or nil.
local function progress_record(id, s, spec, status, update, percentage)
  local added = redis.pcall('XADD', KEYS[11], '*', 'task_id', id, 'title', spec['title'] or '',
    'description', spec['description'] or '', 'status', status,
    'priority', spec['priority'] or 'medium', 'assignee', nova,
    'created_at', s.created, 'updated_at', record_time(s, iso),
    'update', update, 'progress_percentage', percentage)
  if type(added) == 'table' and added.err then
    return KEYS[11] .. ' cannot be written: ' .. added.err
  end
  return nil
end

-- The tasks that this very claim took, when its reply was lost, as far as they are still in hand:
-- {{id, state}, …}. The number alone is not enough: every life of a Nova counts from 1.
local function claimed_before()
  local held = {}
  if not identity[2] then return held end
  local number, ids, epochs = string.match(identity[2], '^(%d+)|([^|]*)|([^|]*)|')
  if number ~= ARGV[5] then return held end
  local next_epoch = string.gmatch(epochs, '%d+')
  for id in string.gmatch(ids, '[^,]+') do
    local s, epoch = get_state(id), next_epoch()
    if s and s.status == 'in_progress' and s.epoch == epoch and s.owner == nova
        and s.nova_epoch == ARGV[4] then
      held[#held + 1] = {id, s}
    end
  end
  return held
end

-- What this claim was answered (ids and epochs, separated by commas): its repeat gets the same, and
-- an older one nothing any more.
local function remember(ids, epochs)
  redis.call('HSET', KEYS[2], 'claim:' .. nova,
    ARGV[5] .. '|' .. ids .. '|' .. epochs .. '|' .. ARGV[4])
end

-- Whether this claim was answered with nothing, or a later one of this life was: a claim that waited
-- in a connection nobody listens to any more must not take a task that nobody would hear of.
local function outdated()
  if not identity[2] then return false end
  local number, ids, life = string.match(identity[2], '^(%d+)|([^|]*)|[^|]*|(%d+)$')
  if life ~= ARGV[4] then return false end
  return tonumber(number) > tonumber(ARGV[5]) or (number == ARGV[5] and ids == '')
end

-- The gate was shut before the lost reply came again: the task may not start and goes back to its
-- place, at no cost. One whose cancellation was asked for is left to its lease, whose end blocks it.
local function hand_back(id, s)
  if s.cancel ~= '' then return end
  local spec = cjson.decode(redis.call('HGET', KEYS[4], id))
  local wrong = progress_record(id, s, spec, 'pending', 'handed back, not begun', '')
  if wrong then error(wrong) end
  redis.call('ZREM', KEYS[9], id)
  s.status, s.owner, s.updated = 'pending', '', now
  s.limit = int(tonumber(s.limit) + 1)
  make_ready(k.ready, k.pinned, id, s, s.ready)
  note(s, now, 'requeue', nova, 'not begun')
  put_state(id, s)
  bump('in_progress', -1)
  bump('pending', 1)
  bump('ended:requeue', 1)
  bump('nova:' .. nova .. ':requeue', 1)
  in_hand('')
end

-- Why nothing may start, as the reply of a claim, or nil; and whether that is only a cooldown, in
-- which critical work goes on (spec §3). What holds this Nova alone is `action|until|reason`.
local function shut()
  local gate = redis.call('HMGET', KEYS[1], 'stop', 'stop_reason', 'valid_until', 'verdict',
    'reason', 'paused', 'paused:' .. nova, 'action', 'hold:' .. nova)
  if gate[1] == '1' then return {-1, gate[2] or ''}, false end
  if not gate[3] or tonumber(gate[3]) < tonumber(now) then
    return {-2, 'the safety verdict has expired'}, false
  end
  local against, cools = nil, true
  if gate[9] then
    local action, _, reason = string.match(gate[9], '^(%a+)|(%d+)|(.*)$')
    against, cools = {-2, reason or 'held for safety'}, action == 'delay'
  end
  if gate[4] ~= 'safe' then
    against, cools = {-2, gate[5] or 'unsafe'}, cools and gate[8] == 'delay'
  end
  if against and not cools then return against, false end
  if gate[6] == '1' then return {-3, 'the fleet is paused'}, false end
  if gate[7] == '1' then return {-3, 'this Nova is paused'}, false end
  return against, against ~= nil
end

-- What this Nova may do, at most `want`, first come first: {{id, sorted set, member}, …}.
local function heads(want)
  local ready = redis.call('ZRANGE', k.ready, 0, want - 1, 'WITHSCORES')
  local pinned = redis.call('ZRANGEBYLEX', k.pinned, '[' .. nova .. '|', '(' .. nova .. '}',
    'LIMIT', 0, want)
  local first, i, j = {}, 1, 1
  while #first < want and (ready[i] or pinned[j]) do
    local score, id
    if pinned[j] then score, id = string.match(pinned[j], '^[^|]*|(%d+)|(.+)$') end
    if pinned[j] and (not ready[i] or not id or tonumber(score) <= tonumber(ready[i + 1])) then
      first[#first + 1] = {id or '', k.pinned, pinned[j]}  -- '': a leftover
      j = j + 1
    else
      first[#first + 1] = {ready[i], k.ready, ready[i]}
      i = i + 2
    end
  end
  return first
end

-- Of the first that wait those that are critical: what may go on in a cooldown.
local function critical()
  local found = {}
  for _, head in ipairs(heads(64)) do
    local s = get_state(head[1])
    if s and s.tier == '0' then found[#found + 1] = head end
  end
  return found
end

-- Whether a task may wait in a Nova's hands for the one before it: a callable, as they can be short,
-- that may be begun once more, for the Nova may die before it begins.
local function may_wait(s, spec)
  return s.deadline == '' and tonumber(s.limit) - tonumber(s.attempt) >= 2
    and spec['callable'] and not spec['accept']
end

-- Takes up to `want` tasks in their order. What would wait in the Nova's hands (all but the first, and
-- the first too if `behind`) must be fit for it, and nothing waits behind a task that is not.
-- {1, {id, epoch, attempt, limit, ready ms, created ISO, deadline ms or '', taken ms, spec JSON}, …}
-- claimed, under a lease that counts from `taken`, also when a repeat is answered;
-- {0, due ms, expired} nothing: the next due time or lease expiry (0 none), whether leases expired;
-- {-1, reason} stopped; {-2, reason} no valid safety verdict; {-3, reason} paused; {-4, reason} the
-- record of the claim cannot be written, or what is to be done cannot be read: then nothing is in
-- hand either, a task whose claim had lost its reply included.
-- Nothing starts without a valid verdict: safety fails closed here, in the claim itself.
local function claim_next(want, behind)
  local refusal, cools = shut()
  local before = claimed_before()
  for i = 1, #before do cools = cools and before[i][2].tier == '0' end
  if refusal and not cools then
    for i = 1, #before do hand_back(before[i][1], before[i][2]) end
    return refusal
  end
  if before[1] then
    local reply = {1}
    for i = 1, #before do
      local id, s = before[i][1], before[i][2]
      reply[i + 1] = claimed(id, s, redis.call('HGET', KEYS[4], id))
    end
    return reply
  end
  if outdated() then return {0, now, 0} end
  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now, 'LIMIT', 0, 16)
  for i = 1, #due do
    redis.call('ZREM', k.delayed, due[i])
    local s = get_state(due[i])
    if s and s.status == 'pending' then
      make_ready(k.ready, k.pinned, due[i], s, s.ready)
    end
  end

  local first, at, looked, enough, wrong = {}, 1, 0, false, nil
  if cools then
    first = critical()
    if not first[1] then return refusal end
  else
    first = heads(want)
  end
  local reply, ids, epochs, gone, leases = {1}, {}, {}, {}, {}
  while first[at] and #ids < want and looked < want + 16 and not enough and not wrong do
    local id, from, member = first[at][1], first[at][2], first[at][3]
    local s, spec_json = get_state(id), nil
    looked = looked + 1
    if s and s.status == 'pending'
        and (s.deadline == '' or tonumber(s.deadline) > tonumber(now)) then
      -- Whoever waits may be stopped or hung, and would use up the only attempt without beginning.
      if waited and tonumber(s.limit) - tonumber(s.attempt) < 2 then return {-8} end
      spec_json = redis.call('HGET', KEYS[4], id)
    end
    if spec_json then
      local readable, spec = pcall(cjson.decode, spec_json)
      local fit = readable and may_wait(s, spec)
      enough = not fit
      if not readable then
        wrong = 'the spec of ' .. id .. ' cannot be read'
      elseif fit or not (behind or #ids > 0) then
        local attempt = int(tonumber(s.attempt) + 1)
        wrong = progress_record(id, s, spec, 'in_progress', 'attempt ' .. attempt .. ' started', '0')
        if not wrong then
          if from == k.pinned then redis.call('ZREM', from, member) else gone[#gone + 1] = member end
          s.status, s.owner, s.nova_epoch, s.updated = 'in_progress', nova, ARGV[4], now
          s.attempt = attempt
          s.epoch = int(tonumber(s.epoch) + 1)
          note(s, now, 'claimed', nova, '')
          put_state(id, s)
          leases[#leases + 1] = int(tonumber(now) + tonumber(ARGV[6]))
          leases[#leases + 1] = id
          ids[#ids + 1], epochs[#epochs + 1] = id, s.epoch
          reply[#reply + 1] = claimed(id, s, spec_json)
        end
      end
    else
      -- A leftover that names no pending task, or none that can be done, or one too late to begin:
      -- the sweep blocks that.
      redis.call('ZREM', from, member)
    end
    at = at + 1
    if not first[at] and #ids == 0 and not enough and not wrong and not cools then
      first, at = heads(want), 1
    end
  end
  if ids[1] then
    if gone[1] then redis.call('ZREM', k.ready, unpack(gone)) end
    redis.call('ZADD', KEYS[9], unpack(leases))
    bump('pending', -#ids)
    bump('in_progress', #ids)
    bump('nova:' .. nova .. ':claimed', #ids)
    remember(table.concat(ids, ','), table.concat(epochs, ','))
    if not behind then in_hand(ids[1]) end
    return reply
  end
  if wrong then return {-4, wrong} end
  if cools then return refusal end
  -- What is not fit to wait is there for whoever is free; so is what comes after many leftovers.
  if enough or first[at] then return {0, now, 0} end
  local later = redis.call('ZRANGE', k.delayed, 0, 0, 'WITHSCORES')
  local lease = redis.call('ZRANGE', KEYS[9], 0, 0, 'WITHSCORES')
  local next_due = tonumber(later[2] or 0)
  local expiry = tonumber(lease[2] or 0)
  if expiry > 0 and (next_due == 0 or expiry < next_due) then next_due = expiry end
  return {0, int(next_due), (expiry > 0 and expiry < tonumber(now)) and 1 or 0}
end
