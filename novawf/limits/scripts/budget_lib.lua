-- What the budget's scripts share. No script by itself: it is put in front of the others.
-- KEYS of each: 1 meta (hash), 2 spent (hash: `scope|window|unit` -> number), 3 tasks (hash:
--       `task|unit` -> number), 4 reservations (hash: id -> record), 5 open (zset: id by
--       reserved ms), 6 ended (zset: id by changed ms)
--
-- Amounts are whole numbers of 1 to 15 digits: exact in a double. `look` touches every key with a
-- command of its type before anything is written, so a key of a wrong type raises first.
-- A broken field is answered as {'corrupt', number of its key, field, what it holds}.
local VERSION = '1'
local LARGEST = 999999999999999
local RECORD = '^1|([a-z]+)|([01])|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|'
  .. '([^|]*)|([^|]*)|(%d+)|(.*)$'
local function int(number) return string.format('%.0f', number) end
local function amount(text)
  if text and #text <= 15 and string.find(text, '^%d+$') then return tonumber(text) end
  return nil
end

-- The fault, or nil; and whether the budgets are empty: then the first write begins them.
local function look()
  local meta = redis.call('HMGET', KEYS[1], 'version', 'swept_hour')
  local begun = redis.call('HGET', KEYS[2], 'fleet|total|usd')
  local used = redis.call('HLEN', KEYS[3]) + redis.call('HLEN', KEYS[4])
    + redis.call('ZCARD', KEYS[5]) + redis.call('ZCARD', KEYS[6])
  if not meta[1] and not meta[2] and not begun and used == 0 then return nil, true end
  if meta[1] ~= VERSION then return {'corrupt', 1, 'version', meta[1] or ''}, false end
  if not amount(meta[2]) then return {'corrupt', 1, 'swept_hour', meta[2] or ''}, false end
  if not amount(begun) then return {'corrupt', 2, 'fleet|total|usd', begun or ''}, false end
  return nil, false
end

-- Where a call is booked: key number, field, unit (1 USD, 2 tokens), rank of the window (1 hour,
-- 2 day, 3 total), and its place in the list of caps.
local function places(nova, provider, task, hour, day)
  local found, at = {}, 0
  local function account(key, name, exists, windows)
    for rank, window in ipairs(windows) do
      for unit, word in ipairs({'usd', 'tokens'}) do
        at = at + 1
        if exists then
          local field = name .. '|' .. (window == '' and '' or window .. '|') .. word
          found[#found + 1] = {key, field, unit, window == '' and 3 or rank, at}
        end
      end
    end
  end
  local windows = {'h' .. hour, 'd' .. day, 'total'}
  account(2, 'fleet', true, windows)
  account(2, 'nova:' .. nova, nova ~= '', windows)
  account(2, 'provider:' .. provider, provider ~= '', windows)
  account(3, task, task ~= '', {''})
  return found
end
