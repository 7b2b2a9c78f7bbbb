-- Writes records of a Nova, and how far they go, exactly once: the marker moves from what the caller
-- expects to what the records cover, or nothing is written.
-- KEYS 1 identity 2 completion 3 celebrations 4 insights 5 status 6 completed (the Nova's streams)
-- ARGV 1 nova 2 nova epoch 3 field of the marker 4 its value now ('' none) 5 its new value; '' stands
--      for the id of the completed record of task 6 6 task id or ''
--      7 records, each: number of its key, how many arguments follow, field, value, …
-- Reply {1, marker, error or ''} written; {2, marker, ''} the marker is not what was expected: the
--      call is a repeat, or somebody else's records came between; {0, '', ''} the completed record
--      was not found; {-5, '', ''} a newer owner has this identity. Only 1 changed anything.
-- The marker is written first, and a record that cannot be (its stream is a key of another type) is
-- left out: records may be lost, never doubled.
local unpack = unpack or table.unpack
local field, expected, marker, task = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {-5, '', ''} end
local now = redis.call('HGET', KEYS[2], field) or ''
if now ~= expected then return {2, now, ''} end

-- The task ended a moment ago: its record is the newest, or a few came after it.
local function find(count)
  local entries = redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', count)
  for i = 1, #entries do
    local fields = entries[i][2]
    for j = 1, #fields, 2 do
      if fields[j] == 'task_id' and fields[j + 1] == task then return entries[i][1] end
    end
  end
  return ''
end

if marker == '' then
  marker = find(2)
  if marker == '' then marker = find(64) end
  if marker == '' then return {0, '', ''} end
end
redis.call('HSET', KEYS[2], field, marker)
local failed, i = '', 7
while ARGV[i] do
  local last = i + 1 + tonumber(ARGV[i + 1])
  local reply = redis.pcall('XADD', KEYS[tonumber(ARGV[i])], '*', unpack(ARGV, i + 2, last))
  if type(reply) == 'table' and reply.err then failed = reply.err end
  i = last + 1
end
return {1, marker, failed}
