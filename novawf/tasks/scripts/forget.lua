-- Removes finished tasks from the store, once they are in the archive.
-- KEYS 1 state 2 spec 3 result 4 order 5 requests 6 counts 7 dependents 8 waiting 9 cascade
--      10 deadlines
-- ARGV for each task: id, the first line of its state as it was archived, its request id or '',
--      its dedupe key or ''
-- Reply {0 or 1, …} for each task: 1 removed, now or by a call whose reply was lost; 0 it stays:
--      it changed since, has not ended, or a task that comes after it is still in the store (a
--      retry of that one has to see how this one ended). Later tasks first: then a whole chain goes.
local unpack = unpack or table.unpack
local reply, gone, requests, counts = {}, {}, {}, {}

local function has_followers(id, s)
  if s.dependents == '' then return false end
  if redis.call('SISMEMBER', KEYS[9], id) == 1 then return true end
  for follower in string.gmatch(redis.call('HGET', KEYS[7], id) or '', '[^,]+') do
    if not gone[follower] and redis.call('HEXISTS', KEYS[1], follower) == 1 then return true end
  end
  return false
end

local function note_request(field, id)
  if redis.call('HGET', KEYS[5], field) == id then requests[#requests + 1] = field end
end

for i = 1, #ARGV, 4 do
  local id, line = ARGV[i], ARGV[i + 1]
  local packed = redis.call('HGET', KEYS[1], id)
  local s = parse_state(packed)
  if not packed then
    reply[#reply + 1] = 1
  elseif s and string.sub(packed, 1, #line + 1) == line .. '\n'
      and (s.status == 'completed' or is_dead(s)) and not has_followers(id, s) then
    reply[#reply + 1] = 1
    gone[#gone + 1] = id
    gone[id] = true
    counts[s.status] = (counts[s.status] or 0) + 1
    if ARGV[i + 2] ~= '' then note_request(ARGV[i + 2], id) end
    if ARGV[i + 3] ~= '' then note_request('dedupe:' .. ARGV[i + 3], id) end
  else
    reply[#reply + 1] = 0
  end
end
if #gone > 0 then
  for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[7], KEYS[8]}) do
    redis.call('HDEL', key, unpack(gone))
  end
  redis.call('ZREM', KEYS[4], unpack(gone))
  redis.call('ZREM', KEYS[10], unpack(gone))
  if #requests > 0 then redis.call('HDEL', KEYS[5], unpack(requests)) end
  for _, status in ipairs({'completed', 'blocked'}) do
    if counts[status] then
      redis.call('HINCRBY', KEYS[6], status, -counts[status])
      redis.call('HINCRBY', KEYS[6], 'archived:' .. status, counts[status])
    end
  end
end
return reply
