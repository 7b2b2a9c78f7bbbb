-- Ends attempts of one Nova and, if asked, claims what comes next: at most one round trip per task.
-- KEYS after those of claiming.lua: 12 completed stream of the Nova 13 result 14 waiting
--      15 dependents 16 cascade 17 wake list of any Nova
-- ARGV after the workflow state: +0 how many to claim +1 '1' when another task is in hand, so that
--      what is claimed will wait +2 claim bucket ('' none) +3 claim µs +4 how many attempts end,
--      then for each of them: +0 task id +1 epoch +2 verdict (completed, retry, blocked, requeue)
--      +3 outcome +4 retry at ms +5 result JSON or '' +6 detail +7 title +8 description +9 priority
--      +10 duration bucket +11 duration µs +12 wake bucket +13 wake µs
-- Reply {code, {code, status, …}, Novas to wake (comma separated), reply of claim_next or {}}: code
--      1, or -5 a newer owner has this Nova's identity and nothing changed. For each attempt: 1 done,
--      2 was done before (the repeat of a call whose reply was lost), -6 this attempt no longer has
--      the task. When no attempt has its task any more, nothing is claimed.
-- `requeue` hands the task back to its place, without using up an attempt. A task whose cancellation was
-- asked for is not repeated: `retry` and `requeue` become blocked, cancelled. Several attempts end
-- by one call only as completed: their records then go to one stream, so that no part of them is
-- written where the rest cannot be.
local EACH = 14
if not is_owner() then return {-5, {}, '', {}} end
local ended, wake, released, held_one = {}, {}, {}, false

local function finish(at)
  local id, epoch, verdict, outcome = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local s = get_state(id)
  if not s or s.epoch ~= epoch or (s.status == 'in_progress' and s.owner ~= nova) then
    return -6, s and s.status or ''
  end
  held_one = true
  if s.status ~= 'in_progress' then return 2, s.status end
  if s.cancel ~= '' and (verdict == 'retry' or verdict == 'requeue') then
    verdict, outcome = 'blocked', 'cancelled'
  end
  local is_end = verdict == 'completed' or verdict == 'blocked'
  local done = verdict == 'completed'
  if is_end then
    redis.call('XADD', KEYS[12], '*', 'task_id', id, 'title', ARGV[at + 7],
      'description', ARGV[at + 8], 'status', verdict, 'priority', ARGV[at + 9],
      'assignee', nova, 'created_at', s.created, 'updated_at', record_time(s, iso),
      done and 'completed_at' or 'outcome', done and record_time(s, iso) or outcome,
      'results', cjson.encode(ARGV[at + 6]))
  else
    redis.call('XADD', KEYS[11], '*', 'task_id', id, 'title', ARGV[at + 7],
      'description', ARGV[at + 8], 'status', 'pending', 'priority', ARGV[at + 9],
      'assignee', nova, 'created_at', s.created, 'updated_at', record_time(s, iso),
      'update', ARGV[at + 6], 'progress_percentage', '')
  end
  released[#released + 1] = id
  if ARGV[at + 5] ~= '' then redis.call('HSET', KEYS[13], id, ARGV[at + 5]) end
  s.owner, s.outcome, s.updated, s.cancel = '', outcome, now, ''
  if is_end then
    s.status = verdict
    if s.dependents ~= '' then
      k.waiting, k.dependents, k.cascade, k.wake = KEYS[14], KEYS[15], KEYS[16], KEYS[17]
      if done then
        for _, name in ipairs(release_dependents(k, id, now)) do wake[#wake + 1] = name end
      else
        redis.call('SADD', k.cascade, id)
      end
    end
  else
    s.status = 'pending'
    if verdict == 'requeue' then s.limit = int(tonumber(s.limit) + 1) end
    if tonumber(ARGV[at + 4]) > tonumber(now) then
      s.ready = ARGV[at + 4]
      redis.call('ZADD', k.delayed, s.ready, id)
    else
      make_ready(k.ready, k.pinned, id, s, verdict == 'requeue' and s.ready or now)
    end
    if s.target == '' then
      push_token(KEYS[17])
    elseif s.target ~= nova then
      wake[#wake + 1] = s.target
    end
  end
  note(s, now, verdict, nova, ARGV[at + 6])
  put_state(id, s)
  bump('in_progress', -1)
  bump(s.status, 1)
  bump('ended:' .. verdict, 1)
  bump('nova:' .. nova .. ':' .. verdict, 1)
  measure('duration', ARGV[at + 10], ARGV[at + 11])
  measure('wake', ARGV[at + 12], ARGV[at + 13])
  return 1, s.status  -- now: claiming may take this very task again
end

for i = 0, tonumber(ARGV[rest + 4]) - 1 do
  local code, status = finish(rest + 5 + i * EACH)
  ended[#ended + 1], ended[#ended + 2] = code, status
end
if not held_one then return {1, ended, '', {}} end
if released[1] then
  redis.call('ZREM', KEYS[9], unpack(released))
  measure('claim', ARGV[rest + 2], ARGV[rest + 3])
end
persist_workflow()
local following, want = {}, tonumber(ARGV[rest])
if want > 0 then
  following = claim_next(want, ARGV[rest + 1] == '1')
  if following[1] ~= 1 then remember('', '0') end
end
write_all()
return {1, ended, table.concat(wake, ','), following}
