-- Remembers a signal and counts how often its text came.
-- KEYS 1 signals seen: `fingerprint|signal id` by arrival (ms)
-- ARGV 1 now 2 fingerprint of the text 3 signal id 4 window ms 5 most that are remembered
-- Reply: signals of that text from a window before this one's first arrival until then, this one
--      included. A repeat under the same id counts nothing again and gives the same answer, for as
--      long as it is remembered.
local member = ARGV[2] .. '|' .. ARGV[3]
local at = redis.call('ZSCORE', KEYS[1], member)
if not at then
  at = ARGV[1]
  redis.call('ZADD', KEYS[1], at, member)
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[5]))
end
local from = string.format('%.0f', tonumber(at) - tonumber(ARGV[4]))
local count = 0
for _, seen in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], from, at)) do
  if string.sub(seen, 1, #ARGV[2] + 1) == ARGV[2] .. '|' then count = count + 1 end
end
return count
