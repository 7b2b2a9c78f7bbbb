-- Claims the next task for a Nova; KEYS as in claiming.lua.
-- ARGV after the workflow state: +0 '1' when this call waited in the connection behind a blocking
--      read. Its time is then old, and is taken from the admission that ended the wait.
-- Reply as claim_next, or {-5, epoch} when the Nova's identity belongs to a newer owner, or {-8}
--      when it waited and no admission was made within the last second: ask anew.
-- A repeat with the same claim number returns the same task, or nothing as before.
if not is_owner() then return {-5, identity[1] or '0'} end
if ARGV[rest] == '1' then
  local pushed = redis.call('HGET', KEYS[1], 'pushed') or ''
  local at, at_iso, at_us = string.match(pushed, '^(%d+)|([^|]*)|(%d+)$')
  local time = redis.call('TIME')
  local age_us = at and (tonumber(time[1]) * 1000000 + tonumber(time[2]) - tonumber(at_us))
  if not age_us or age_us < 0 or age_us > 1000000 or tonumber(at) < tonumber(now) then
    remember('', '0')
    return {-8}
  end
  now, iso = int(tonumber(at) + math.floor(age_us / 1000)), at_iso
end
persist_workflow()
local reply = claim_next()
if reply[1] ~= 1 then remember('', '0') end
write_all()
return reply
