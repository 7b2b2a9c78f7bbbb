-- Notes how far task streams were checked, and what was found, once.
-- KEYS 1 what was checked
-- ARGV 1 a violation as JSON or '', then for each stream: its name, the id it had been checked up
--      to, the id it is checked up to now, valid records, all records
-- Reply {0 or 1, …} for each stream: 0 when somebody else has checked it meanwhile, or this is the
--      repeat of a call whose reply was lost; then nothing of it is counted.
local reply, valid, all = {}, 0, 0
for i = 2, #ARGV, 5 do
  local field = 'cursor:' .. ARGV[i]
  local before = redis.call('HGET', KEYS[1], field)
  if (before or '0-0') == ARGV[i + 1] then
    redis.call('HSET', KEYS[1], field, ARGV[i + 2])
    valid, all = valid + tonumber(ARGV[i + 3]), all + tonumber(ARGV[i + 4])
    reply[#reply + 1] = 1
  else
    reply[#reply + 1] = 0
  end
end
if all > 0 then
  redis.call('HINCRBY', KEYS[1], 'valid', valid)
  redis.call('HINCRBY', KEYS[1], 'all', all)
  if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], 'last', ARGV[1]) end
end
return reply
