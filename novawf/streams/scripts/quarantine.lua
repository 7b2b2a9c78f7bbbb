-- Puts a refused entry into quarantine and acknowledges it, once.
--
-- KEYS  1 the entry's stream  2 quarantine (stream)  3 counts of signals and entries (hash)
-- ARGV  1 group  2 entry id  3 reason  4 its fields for people (JSON)  5 time (ISO 8601)
--       6 how many refused entries are remembered, about
-- Replies 1, or 0 when the entry is no longer pending in the group.
--
-- Whether it is pending decides: acknowledging it and writing it down are one step. So a repeat
-- after a lost reply, or by a reader that was taken for dead, changes nothing.

-- First what may fail: an error after the acknowledgement would lose the entry's trace.
redis.call('XLEN', KEYS[2])
redis.call('HGET', KEYS[3], 'quarantined')

if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'stream', KEYS[1], 'id', ARGV[2],
  'reason', ARGV[3], 'fields', ARGV[4], 'at', ARGV[5])
redis.call('HINCRBY', KEYS[3], 'quarantined:' .. KEYS[1], 1)
return 1
