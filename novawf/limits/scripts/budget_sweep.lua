-- Forget windows and reservations that are past, and tasks that have left the store.
-- KEYS: see budget_lib.lua
-- ARGV: 1 first hour that stays, 2 reservations that ended before this (fleet ms) go, 3 at most so
--       many of them, 4 number of fields of `spent` that follow, then these, then fields of `tasks`
-- Reply: {'swept', reservations gone, fields gone} or {'corrupt', key, field, value}
-- Repeat: removes nothing more than a later sweep would.
--
-- The first hour that stays only ever moves on, and nothing is reserved before it: a clock that
-- went back finds no window that was emptied. What is open never goes.
local fault, fresh = look()
if fault then return fault end
if fresh then return {'swept', 0, 0} end
local swept = tonumber(redis.call('HGET', KEYS[1], 'swept_hour'))
if tonumber(ARGV[1]) > swept then redis.call('HSET', KEYS[1], 'swept_hour', ARGV[1]) end

local gone = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(gone) do
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZREM', KEYS[6], id)
end
local fields, spent = 0, tonumber(ARGV[4])
for i = 5, #ARGV do
  fields = fields + redis.call('HDEL', i <= 4 + spent and KEYS[2] or KEYS[3], ARGV[i])
end
return {'swept', #gone, fields}
