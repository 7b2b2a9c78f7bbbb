-- Prefix of every queue script: the packed task state and the moves that several scripts share.
-- State, one string per task: a line of fields joined by '|' (novawf/tasks/state.py reads the same
-- order), then one line per event, the task's history:
--   status outcome attempt limit epoch owner nova_epoch target tier created updated ready cancel
--   deadline dependents approved
--   at ms|event|nova|attempt|detail …
-- `epoch` is the fencing token: it grows with every claim, so a finish under an older one is
-- refused, and a finish repeated under the same one is recognised. Times are fleet ms, but `created`
-- is the ISO time of the protocol records. `limit` is the number of attempts allowed; `deadline` is
-- '' for none; `dependents` is '1' once another task waits for this one, `approved` once its user
-- has said so.
local function int(x) return string.format('%.0f', x) end

local STATE = '^([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)'
  .. '|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)\n?(.*)$'

local function parse_state(packed)
  if not packed then return nil end
  local s = {}
  s.status, s.outcome, s.attempt, s.limit, s.epoch, s.owner, s.nova_epoch, s.target, s.tier,
    s.created, s.updated, s.ready, s.cancel, s.deadline, s.dependents, s.approved,
    s.history
    = string.match(packed, STATE)
  if not s.status then return nil end
  return s
end

local function read_state(key, id) return parse_state(redis.call('HGET', key, id)) end

local function pack_state(s)
  return s.status .. '|' .. s.outcome .. '|' .. s.attempt .. '|' .. s.limit
    .. '|' .. s.epoch .. '|' .. s.owner .. '|' .. s.nova_epoch .. '|' .. s.target .. '|' .. s.tier
    .. '|' .. s.created .. '|' .. s.updated .. '|' .. s.ready .. '|' .. s.cancel
    .. '|' .. s.deadline .. '|' .. s.dependents .. '|' .. s.approved .. '\n' .. s.history
end

local function write_state(key, id, s) redis.call('HSET', key, id, pack_state(s)) end

local function move_count(key, from, to)
  redis.call('HINCRBY', key, from, -1)
  redis.call('HINCRBY', key, to, 1)
end

-- Adds an event to the history, which is written along with the state.
local function note(s, now, event, nova, detail)
  local lines = s.history
  -- Bounded by whole lines: a part of one could be read by nobody.
  if #lines > 8192 then lines = string.match(string.sub(lines, -6144), '\n(.*)$') or '' end
  s.history = lines .. now .. '|' .. event .. '|' .. nova .. '|' .. s.attempt .. '|' .. detail .. '\n'
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

-- The time for a record: never before the task's creation, however far the wall clock went back.
local function record_time(s, iso) return iso < s.created and s.created or iso end

-- Blocked for good, so that what waits for it is blocked too; approval may still come.
local function is_dead(s) return s.status == 'blocked' and s.outcome ~= 'awaiting_approval' end

-- Dependents of a completed task: one less to wait for; those that wait for nothing become ready.
-- Those that were blocked by its earlier failure stay listed, for the cascade to take up again.
-- Returns the Novas to wake besides the one that calls.
local function release_dependents(k, id, now)
  local wake, left_over = {}, {}
  local list = redis.call('HGET', k.dependents, id)
  if not list then return wake end
  for dependent in string.gmatch(list, '[^,]+') do
    local s = read_state(k.state, dependent)
    if s and s.status == 'blocked' and s.outcome == 'dependency' then
      left_over[#left_over + 1] = dependent
    elseif redis.call('HINCRBY', k.waiting, dependent, -1) <= 0 then
      redis.call('HDEL', k.waiting, dependent)
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
  if #left_over > 0 then
    redis.call('HSET', k.dependents, id, table.concat(left_over, ','))
    redis.call('SADD', k.cascade, id)
  else
    redis.call('HDEL', k.dependents, id)
  end
  return wake
end
