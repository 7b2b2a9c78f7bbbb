-- Posts to nova.enterprise.metrics what happened to tasks since the last call, each thing once.
-- KEYS 1 counts 2 what was sent 3 metrics stream
-- ARGV 1 iso time
-- Reply: how many records were posted. Posting and noting what was posted are one step, so a crash
--      or a repeat counts nothing twice: the values of a counter's records add up to the counter.
-- Of the fields of counts: `pending` … are gauges, `admitted`, `retried`, `ended:{event}` and
--      `archived:{status}` counters of the fleet, `nova:{nova}:{event}` counters of a Nova.
local unpack = unpack or table.unpack
local GAUGES = {pending = true, in_progress = true, completed = true, blocked = true}

-- Name, type and Nova of the record for a field of counts; nil for one that is no task's change.
local function record_of(field)
  if GAUGES[field] then return 'tasks_now_' .. field, 'gauge', 'fleet' end
  if field == 'admitted' or field == 'retried' then return 'tasks_' .. field, 'counter', 'fleet' end
  local ended = string.match(field, '^ended:([a-z_]+)$')
  if ended then return 'tasks_' .. ended, 'counter', 'fleet' end
  local archived = string.match(field, '^archived:([a-z_]+)$')
  if archived then return 'tasks_archived_' .. archived, 'counter', 'fleet' end
  local nova, event = string.match(field, '^nova:([^:]+):([a-z_]+)$')
  if nova then return 'nova_tasks_' .. event, 'counter', nova end
  return nil
end

local sent, had = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #had, 2 do sent[had[i]] = had[i + 1] end
local counts, changed = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #counts, 2 do
  local field, total = counts[i], counts[i + 1]
  if sent[field] ~= total then
    local name, kind, nova = record_of(field)
    if name then
      local value = total
      if kind == 'counter' then
        value = string.format('%.0f', tonumber(total) - tonumber(sent[field] or '0'))
      end
      redis.call('XADD', KEYS[3], '*', 'name', name, 'value', value, 'type', kind,
        'timestamp', ARGV[1], 'nova_id', nova, 'context', '{"total":' .. total .. '}')
      changed[#changed + 1] = field
      changed[#changed + 1] = total
    end
  end
end
if #changed > 0 then redis.call('HSET', KEYS[2], unpack(changed)) end
return #changed / 2
