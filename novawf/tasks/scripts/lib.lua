-- Prefix of every queue script: the packed task state and the moves that several scripts share.
-- State, one string per task, fields joined by '|' (novawf/tasks/state.py reads the same order):
--   status outcome attempt limit epoch owner nova_epoch target tier created updated ready cancel
-- `epoch` is the fencing token: it grows with every claim, so a finish under an older one is
-- refused, and a finish repeated under the same one is recognised. Times are fleet ms, but `created`
-- is the ISO time of the protocol records. `limit` is the number of attempts allowed.
local function int(x) return string.format('%.0f', x) end

local STATE = '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$'

local function read_state(key, id)
  local packed = redis.call('HGET', key, id)
  if not packed then return nil end
  local s = {}
  s.status, s.outcome, s.attempt, s.limit, s.epoch, s.owner, s.nova_epoch, s.target, s.tier,
    s.created, s.updated, s.ready, s.cancel = string.match(packed, STATE)
  if not s.status then return nil end
  return s
end

local function write_state(key, id, s)
  redis.call('HSET', key, id, s.status .. '|' .. s.outcome .. '|' .. s.attempt .. '|' .. s.limit
    .. '|' .. s.epoch .. '|' .. s.owner .. '|' .. s.nova_epoch .. '|' .. s.target .. '|' .. s.tier
    .. '|' .. s.created .. '|' .. s.updated .. '|' .. s.ready .. '|' .. s.cancel)
end

local function move_count(key, from, to)
  redis.call('HINCRBY', key, from, -1)
  redis.call('HINCRBY', key, to, 1)
end

local function note(key, id, now, event, nova, attempt, detail)
  local lines = redis.call('HGET', key, id) or ''
  -- Bounded by whole lines: a part of one could be read by nobody.
  if #lines > 8192 then lines = string.match(string.sub(lines, -6144), '\n(.*)$') or '' end
  redis.call('HSET', key, id, lines .. now .. '|' .. event .. '|' .. nova .. '|' .. attempt
    .. '|' .. detail .. '\n')
end

-- Puts a task where it waits to be claimed: the ready set, or its Nova's part of the pinned set.
local function make_ready(ready_key, pinned_key, id, s, now)
  s.ready = now
  local score = int(tonumber(now) + tonumber(s.tier))
  if s.target == '' then
    redis.call('ZADD', ready_key, score, id)
  else
    redis.call('ZADD', pinned_key, 0, s.target .. '|' .. string.rep('0', 16 - #score) .. score
      .. '|' .. id)
  end
end

-- Removes a waiting task from wherever it waits.
local function unqueue(ready_key, pinned_key, delayed_key, id, s)
  redis.call('ZREM', ready_key, id)
  redis.call('ZREM', delayed_key, id)
  if s.target ~= '' then
    local score = int(tonumber(s.ready) + tonumber(s.tier))
    redis.call('ZREM', pinned_key, s.target .. '|' .. string.rep('0', 16 - #score) .. score
      .. '|' .. id)
  end
end

local function push_token(key)
  if redis.call('LLEN', key) < 64 then redis.call('LPUSH', key, '1') end
end

-- Dependents of a completed task: one less to wait for; those that wait for nothing become ready.
-- Returns the Novas to wake besides the one that calls.
local function release_dependents(k, id, now)
  local wake = {}
  local list = redis.call('HGET', k.dependents, id)
  if not list then return wake end
  for dependent in string.gmatch(list, '[^,]+') do
    local left = redis.call('HINCRBY', k.waiting, dependent, -1)
    if left <= 0 then
      redis.call('HDEL', k.waiting, dependent)
      local s = read_state(k.state, dependent)
      if s and s.status == 'pending' then
        if tonumber(s.ready) > tonumber(now) then
          redis.call('ZADD', k.delayed, s.ready, dependent)
        else
          make_ready(k.ready, k.pinned, dependent, s, now)
        end
        write_state(k.state, dependent, s)
        if s.target == '' then push_token(k.wake) else wake[#wake + 1] = s.target end
      end
    end
  end
  redis.call('HDEL', k.dependents, id)
  return wake
end
