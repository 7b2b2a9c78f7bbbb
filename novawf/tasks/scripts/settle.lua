-- Takes a cause off the cascade, once there is nothing left to carry on.
-- KEYS 1 state 2 dependents 3 cascade
-- ARGV 1 id of the cause 2 its status as the caller acted on it
-- Reply {1} settled; {0} not yet: its status changed since, or it is blocked and something that is
--      pending waits for it. Looking and removing are one step, because a task may be admitted
--      behind the cause at any moment. A repeat changes nothing.
local cause = read_state(KEYS[1], ARGV[1])
if cause then
  if cause.status ~= ARGV[2] then return {0} end
  if is_dead(cause) then
    for dependent in string.gmatch(redis.call('HGET', KEYS[2], ARGV[1]) or '', '[^,]+') do
      local s = read_state(KEYS[1], dependent)
      if s and s.status == 'pending' then return {0} end
    end
  elseif cause.status == 'completed' then
    redis.call('HDEL', KEYS[2], ARGV[1])
  end
end
redis.call('SREM', KEYS[3], ARGV[1])
return {1}
