-- Claims the next task for a Nova; KEYS and ARGV as in claiming.lua, nothing more.
-- Reply as claim_next, or {-5, epoch} when the Nova's identity belongs to a newer owner.
-- A repeat with the same claim number returns the same task.
if not is_owner() then return {-5, identity[1] or '0'} end
persist_workflow()
local reply = claim_next()
write_all()
return reply
