-- Prefix of the heartbeats: what a Nova hears of gate and queue.
-- Answers stopped (2: what runs may finish), paused, valid until ms, objection, work as the replies of beat.lua have them.
local function hear(gate_key, ready_key, pinned_key, nova)
  local gate = redis.call('HMGET', gate_key, 'stop', 'paused', 'paused:' .. nova, 'valid_until',
    'verdict', 'reason', 'stop_drains')
  local objection = ''
  if gate[5] ~= 'safe' then
    objection = gate[6] or ''
    if objection == '' then objection = 'unsafe' end
  end
  local work = redis.call('ZCARD', ready_key) > 0 or #redis.call('ZRANGEBYLEX', pinned_key,
    '[' .. nova .. '|', '(' .. nova .. '}', 'LIMIT', 0, 1) > 0
  local stopped = gate[1] == '1' and (gate[7] == '1' and 2 or 1) or 0
  return stopped, (gate[2] == '1' or gate[3] == '1') and 1 or 0,
    string.format('%.0f', tonumber(gate[4] or '0')), objection, work and 1 or 0
end

