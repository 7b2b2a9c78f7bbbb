-- Write a round of the safety orchestrator: its verdict into the gate, what its mechanisms remember,
-- and the violations they found. All of it or nothing. Never touches stop or pause.
-- KEYS: 1 gate (hash), 2 safety state (hash), 3 safety events (stream), 4 counts (hash),
--       5.. streams nova.safety.*, each for one of the posts
-- ARGV: 1 checked_at (fleet ms at which the evaluation began), 2 valid_until (fleet ms),
--       3 verdict ('safe' | 'unsafe'), 4 reason, 5 now (fleet ms), 6 now (ISO 8601),
--       7 action ('allow' | 'delay' | 'pause' | 'halt'), 8 expected end (fleet ms; 0 unknown),
--       9 epoch of the writer, 10 bucket of the check's duration ('' none), 11 its µs,
--       12 how many holds: then for each Nova, `action|until|reason`;
--       then how many memories: for each field, JSON;
--       then how many new events: for each kind, source, nova, detail;
--       then how many posts: for each the place of its stream in KEYS, kind, source, detail, at (ISO)
-- Reply: 1 written, 0 refused because a later verdict is in place, -1 a newer writer is at work
-- Repeat: a verdict that was written is written again; its memories and events then come from the
--       same round, so they are the same, and events that are reported twice err on the safe side.
--
-- A verdict that was overtaken on its way must not replace its successor. One that looks older by
-- more than its own validity was not overtaken: the clock was set back, and it is the best there is.
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[9]) then return -1 end
if not epoch then redis.call('HSET', KEYS[2], 'epoch', ARGV[9]) end
local checked_at, valid_until = tonumber(ARGV[1]), tonumber(ARGV[2])
local behind = tonumber(redis.call('HGET', KEYS[1], 'checked_at') or '0') - checked_at
if behind > 0 and behind <= valid_until - checked_at then
  return 0
end

local place = 12
local function take(size)
  local rows = {}
  for _ = 1, tonumber(ARGV[place]) do
    local row = {}
    for i = 1, size do row[i] = ARGV[place + i] end
    rows[#rows + 1] = row
    place = place + size
  end
  place = place + 1
  return rows
end
local holds, memories, events, posts = take(2), take(2), take(4), take(5)

-- First what may fail, so that an error changes nothing: a key of another type.
redis.call('XLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
for i = 5, #KEYS do redis.call('XLEN', KEYS[i]) end

local held = {}
for _, hold in ipairs(holds) do held['hold:' .. hold[1]] = hold[2] end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(name, 1, 5) == 'hold:' and not held[name] then redis.call('HDEL', KEYS[1], name) end
end
for name, text in pairs(held) do redis.call('HSET', KEYS[1], name, text) end
for _, memory in ipairs(memories) do redis.call('HSET', KEYS[2], memory[1], memory[2]) end
for _, event in ipairs(events) do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '10000', '*', 'kind', event[1], 'source', event[2],
    'nova', event[3], 'detail', event[4], 'at', ARGV[5])
end
for _, post in ipairs(posts) do
  redis.call('XADD', KEYS[tonumber(post[1])], '*', 'kind', post[2], 'source', post[3],
    'detail', post[4], 'timestamp', post[5])
  redis.call('HINCRBY', KEYS[4], 'violation:' .. post[2], 1)
end
if ARGV[10] ~= '' then
  redis.call('HINCRBY', KEYS[4], 'check:' .. ARGV[10], 1)
  redis.call('HINCRBY', KEYS[4], 'check:sum', ARGV[11])
end

-- `clock` tells claims that waited here what time it is (tasks/scripts/claim.lua): now, and the
-- store's own time in microseconds when that was written.
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'clock', ARGV[5] .. '|' .. ARGV[6] .. '|'
  .. string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])))
redis.call('HSET', KEYS[1], 'checked_at', ARGV[1], 'valid_until', ARGV[2],
  'verdict', ARGV[3], 'reason', ARGV[4], 'action', ARGV[7], 'until', ARGV[8])
return 1
