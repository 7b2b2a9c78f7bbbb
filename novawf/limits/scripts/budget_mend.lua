-- Put one thing of the budgets right, if it is still as it was found.
-- KEYS: see budget_lib.lua
-- ARGV: 1 number of the key, 2 field or member ('': the whole key goes), 3 '1' when something was
--       found there, 4 what (of a whole key its type), 5 '1' when it gets a new value, 6 that value
-- Reply: 1 done, 0 it is not as it was found
-- Repeat: finds it changed and does nothing.
local key, name = KEYS[tonumber(ARGV[1])], ARGV[2]
local kind = redis.call('TYPE', key)
if type(kind) == 'table' then kind = kind.ok end
if name == '' then
  if kind ~= ARGV[4] then return 0 end
  redis.call('DEL', key)
  return 1
end

local sorted = tonumber(ARGV[1]) > 4
if kind ~= 'none' and kind ~= (sorted and 'zset' or 'hash') then return 0 end
local held
if sorted then
  held = redis.call('ZSCORE', key, name)
else
  held = redis.call('HGET', key, name)
end
if ARGV[3] == '1' then
  -- A score may be spelt in more than one way.
  if not held or not (held == ARGV[4] or (sorted and tonumber(held) == tonumber(ARGV[4]))) then
    return 0
  end
elseif held then
  return 0
end
if ARGV[5] ~= '1' and sorted then
  redis.call('ZREM', key, name)
elseif ARGV[5] ~= '1' then
  redis.call('HDEL', key, name)
elseif sorted then
  redis.call('ZADD', key, ARGV[6], name)
else
  redis.call('HSET', key, name, ARGV[6])
end
return 1
