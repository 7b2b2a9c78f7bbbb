-- Reserve what a paid call may cost, in every budget that it falls under, or in none.
-- KEYS: see budget_lib.lua
-- ARGV: 1 reservation id, 2 now (fleet ms), 3 hour, 4 day (of now), 5 micro-USD, 6 tokens, 7 nova,
--       8 provider, 9 task, 10 model, 11-30 caps, '' for none: fleet, nova and provider, of each
--       hour, day, total in USD and tokens, then the task's two
-- Reply: {'reserved', record}, {'kept', record} (the id is known, in whatever state),
--        {'spent', place of the cap that frees last, its cap, what is spent of it},
--        {'clock', first hour that is not swept} (fleet time went back past what is known),
--        {'corrupt', key, field, value}
-- Repeat: an id that is known gets its reservation again and changes nothing.
--
-- A reservation counts as spent at once: spent + amount <= cap in every window, so reservations
-- never exceed a cap. It stays for good unless somebody tells what the call cost (settle.lua).
local fault, fresh = look()
if fault then return fault end
local before = redis.call('HGET', KEYS[4], ARGV[1])
if before then return {'kept', before} end
if not fresh then
  local swept = redis.call('HGET', KEYS[1], 'swept_hour')
  if tonumber(ARGV[3]) < tonumber(swept) then return {'clock', swept} end
end

local asked = {tonumber(ARGV[5]), tonumber(ARGV[6])}
local booked = places(ARGV[7], ARGV[8], ARGV[9], ARGV[3], ARGV[4])
local refusal, last = nil, 0
for _, place in ipairs(booked) do
  local text = redis.call('HGET', KEYS[place[1]], place[2])
  local spent = amount(text or '0')
  if not spent or spent + asked[place[3]] > LARGEST then
    return {'corrupt', place[1], place[2], text or ''}
  end
  local cap = ARGV[10 + place[5]]
  if cap ~= '' and asked[place[3]] > 0 and spent + asked[place[3]] > tonumber(cap)
    and place[4] > last then
    refusal, last = {'spent', place[5], cap, int(spent)}, place[4]
  end
end
if refusal then return refusal end

if fresh then redis.call('HSET', KEYS[1], 'version', VERSION, 'swept_hour', '0') end
for _, place in ipairs(booked) do
  redis.call('HINCRBY', KEYS[place[1]], place[2], int(asked[place[3]]))
end
local record = table.concat({'1', 'open', '0', ARGV[2], ARGV[5], ARGV[6], ARGV[5], ARGV[6],
  ARGV[3], ARGV[4], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[2], ''}, '|')
redis.call('HSET', KEYS[4], ARGV[1], record)
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
return {'reserved', record}
