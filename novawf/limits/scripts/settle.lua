-- Book what a call really cost, in the windows in which it was reserved, whatever their caps say.
-- KEYS: see budget_lib.lua
-- ARGV: 1 reservation id, 2 'settle' | 'release' | 'correct', 3 now (fleet ms), 4 micro-USD,
--       5 tokens ('': not known, it stays as it is), 6 evidence (of 'correct'),
--       7 for how long (ms) an open one is too young to be corrected
-- Reply: {'booked', record}, {'nothing', record} (the state's table has no such step, or it was
--        taken before), {'young', record}, {'unknown', ''}, {'corrupt', key, field, value}
-- Repeat: changes nothing.
--
-- What a caller tells late, after somebody else closed the reservation in its place, only ever
-- raises the amount: he may have seen what the evidence did not. Windows that were swept since are
-- not made again; the totals are.
local fault = look()
if fault then return fault end
local id, verb, now = ARGV[1], ARGV[2], ARGV[3]
local before = redis.call('HGET', KEYS[4], id)
if not before then return {'unknown', ''} end
local state, told, at, usd, tokens, first_usd, first_tokens, hour, day, nova, provider, task, model,
  changed, evidence = string.match(before, RECORD)
if not (state and amount(at) and amount(usd) and amount(tokens)) then
  return {'corrupt', 4, id, before}
end

local old = {tonumber(usd), tonumber(tokens)}
local new = {ARGV[4] == '' and old[1] or tonumber(ARGV[4]),
  ARGV[5] == '' and old[2] or tonumber(ARGV[5])}
if verb == 'settle' then
  if told == '1' then return {'nothing', before} end
  told = '1'
  if state ~= 'open' then new = {math.max(old[1], new[1]), math.max(old[2], new[2])} end
  if state ~= 'corrected' then state = 'settled' end
elseif verb == 'release' then
  if state ~= 'open' then return {'nothing', before} end
  state, new = 'released', {0, 0}
else
  if state == 'open' and tonumber(now) - tonumber(at) < tonumber(ARGV[7]) then
    return {'young', before}
  end
  if state == 'corrected' and evidence == ARGV[6] and new[1] == old[1] and new[2] == old[2] then
    return {'nothing', before}
  end
  state, evidence = 'corrected', ARGV[6]
end

local changes = {}
for _, place in ipairs(places(nova, provider, task, hour, day)) do
  local text = redis.call('HGET', KEYS[place[1]], place[2])
  local by = new[place[3]] - old[place[3]]
  local swept = not text and (place[4] < 3 or place[1] == 3)
  if not swept then
    local sum = amount(text)
    if not sum or sum + by < 0 or sum + by > LARGEST then
      return {'corrupt', place[1], place[2], text or ''}
    end
    if by ~= 0 then changes[#changes + 1] = {KEYS[place[1]], place[2], int(by)} end
  end
end

for _, change in ipairs(changes) do redis.call('HINCRBY', change[1], change[2], change[3]) end
local record = table.concat({'1', state, told, at, int(new[1]), int(new[2]), first_usd,
  first_tokens, hour, day, nova, provider, task, model, now, evidence}, '|')
redis.call('HSET', KEYS[4], id, record)
redis.call('ZREM', KEYS[5], id)
redis.call('ZADD', KEYS[6], now, id)
return {'booked', record}
