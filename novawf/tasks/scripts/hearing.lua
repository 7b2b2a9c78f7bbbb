-- Prefix of the heartbeats: what a Nova hears of gate and queue.
-- Answers stopped (2: what runs may finish), paused, valid until ms, objection, work as the replies of
-- beat.lua have them. In a cooldown there is no objection while something critical waits: the claim
-- takes that alone.
local function critical_waits(state_key, ready_key, pinned_key, nova)
  local ids = redis.call('ZRANGE', ready_key, 0, 63)
  local pinned = redis.call('ZRANGEBYLEX', pinned_key, '[' .. nova .. '|', '(' .. nova .. '}',
    'LIMIT', 0, 64)
  for _, member in ipairs(pinned) do
    ids[#ids + 1] = string.match(member, '^[^|]*|%d+|(.+)$') or ''
  end
  if not ids[1] then return false end
  for _, packed in ipairs(redis.call('HMGET', state_key, (unpack or table.unpack)(ids))) do
    local s = parse_state(packed)
    if s and s.status == 'pending' and s.tier == '0' then return true end
  end
  return false
end

local function hear(gate_key, state_key, ready_key, pinned_key, nova)
  local gate = redis.call('HMGET', gate_key, 'stop', 'paused', 'paused:' .. nova, 'valid_until',
    'verdict', 'reason', 'action', 'hold:' .. nova, 'stop_drains')
  local objection, cools = '', true
  if gate[8] then
    local action, _, reason = string.match(gate[8], '^(%a+)|(%d+)|(.*)$')
    objection, cools = reason or 'held for safety', action == 'delay'
  end
  if gate[5] ~= 'safe' then
    objection, cools = gate[6] or '', cools and gate[7] == 'delay'
    if objection == '' then objection = 'unsafe' end
  end
  if objection ~= '' and cools and critical_waits(state_key, ready_key, pinned_key, nova) then
    objection = ''
  end
  local work = redis.call('ZCARD', ready_key) > 0 or #redis.call('ZRANGEBYLEX', pinned_key,
    '[' .. nova .. '|', '(' .. nova .. '}', 'LIMIT', 0, 1) > 0
  local stopped = gate[1] == '1' and (gate[9] == '1' and 2 or 1) or 0
  return stopped, (gate[2] == '1' or gate[3] == '1') and 1 or 0,
    string.format('%.0f', tonumber(gate[4] or '0')), objection, work and 1 or 0
end

