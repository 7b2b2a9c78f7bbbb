-- Claims the next task for a Nova; KEYS as in claiming.lua.
-- ARGV after the workflow state: +0 '1' when this call waited in the connection behind a blocking
--      read. Its time is then old: the time is the orchestrator's, as it last wrote the verdict,
--      and what has passed since by the store's own clock.
-- Reply as claim_next, or {-5, epoch} when the Nova's identity belongs to a newer owner, or {-8}
--      when it waited and cannot know the time, or the first task may be begun only once more: ask
--      anew.
-- A repeat with the same claim number returns the same task, or nothing as before.
if not is_owner() then return {-5, identity[1] or '0'} end
if ARGV[rest] == '1' then
  local clock = redis.call('HGET', KEYS[1], 'clock') or ''
  local at, at_iso, at_us = string.match(clock, '^(%d+)|([^|]*)|(%d+)$')
  local time = redis.call('TIME')
  local age_us = at and (tonumber(time[1]) * 1000000 + tonumber(time[2]) - tonumber(at_us))
  if not age_us or age_us < 0 or age_us > 10000000 then
    remember('', '0')
    return {-8}
  end
  now = int(math.max(tonumber(now), tonumber(at) + math.floor(age_us / 1000)))
  iso, waited = at_iso, true
end
persist_workflow()
local reply = claim_next(1)
if reply[1] ~= 1 then remember('', '0') end
write_all()
return reply
