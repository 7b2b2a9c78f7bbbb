-- Ends an attempt and, if asked, claims the next task: one round trip per task.
-- KEYS after those of claiming.lua: 13 completed stream of the Nova 14 result 15 waiting
--      16 dependents 17 cascade 18 wake list of any Nova
-- ARGV after the workflow state: +0 task id +1 epoch +2 verdict (completed, retry, blocked, requeue)
--      +3 outcome +4 retry at ms +5 result JSON +6 detail +7 title +8 description +9 priority
--      +10 duration bucket +11 claim bucket +12 wake bucket ('' none) +13 duration µs
--      +14 claim µs +15 wake µs +16 '1' to claim the next
-- Reply {code, status, Novas to wake (comma separated), reply of claim_next or {}}: code 1 done,
--      2 was done before (the repeat of a call whose reply was lost). Nothing changed: -5 a newer
--      owner has this Nova's identity, -6 this attempt no longer has the task.
-- `requeue` hands the task back without using up an attempt (drain). A task whose cancellation was
-- asked for is not repeated: `retry` and `requeue` become blocked, cancelled.
local id, epoch, verdict, outcome = ARGV[rest], ARGV[rest + 1], ARGV[rest + 2], ARGV[rest + 3]
if not is_owner() then return {-5, '', '', {}} end
local s = read_state(k.state, id)
if not s or s.epoch ~= epoch or (s.status == 'in_progress' and s.owner ~= nova) then
  return {-6, s and s.status or '', '', {}}
end
persist_workflow()
local code, wake = 2, {}
if s.status == 'in_progress' then
  code = 1
  k.waiting, k.dependents, k.wake = KEYS[15], KEYS[16], KEYS[18]
  redis.call('ZREM', KEYS[10], id)
  redis.call('HSET', KEYS[14], id, ARGV[rest + 5])
  if s.cancel ~= '' and (verdict == 'retry' or verdict == 'requeue') then
    verdict, outcome = 'blocked', 'cancelled'
  end
  s.owner, s.outcome, s.updated, s.cancel = '', outcome, now, ''
  local stream, extra = KEYS[13], 'results'
  if verdict == 'completed' or verdict == 'blocked' then
    s.status = verdict
    if verdict == 'completed' then
      wake = release_dependents(k, id, now)
    else
      redis.call('SADD', KEYS[17], id)
    end
  else
    s.status, stream, extra = 'pending', KEYS[12], 'update'
    if verdict == 'requeue' then s.limit = int(tonumber(s.limit) + 1) end
    if tonumber(ARGV[rest + 4]) > tonumber(now) then
      s.ready = ARGV[rest + 4]
      redis.call('ZADD', k.delayed, s.ready, id)
    else
      make_ready(k.ready, k.pinned, id, s, now)
    end
    if s.target == '' then
      push_token(KEYS[18])
    elseif s.target ~= nova then
      wake[#wake + 1] = s.target
    end
  end
  write_state(k.state, id, s)
  bump('in_progress', -1)
  bump(s.status, 1)
  bump('ended:' .. verdict, 1)
  local measured = {'duration', 'claim', 'wake'}
  for i = 1, 3 do
    if ARGV[rest + 9 + i] ~= '' then
      bump(measured[i] .. ':' .. ARGV[rest + 9 + i], 1)
      bump(measured[i] .. ':sum', tonumber(ARGV[rest + 12 + i]))
    end
  end
  note(KEYS[5], id, now, verdict, nova, s.attempt, ARGV[rest + 6])
  redis.call('XADD', stream, '*', 'task_id', id, 'title', ARGV[rest + 7],
    'description', ARGV[rest + 8], 'status', s.status, 'priority', ARGV[rest + 9],
    'assignee', nova, 'created_at', s.created, 'updated_at', ARGV[2],
    s.status == 'completed' and 'completed_at' or 'outcome',
    s.status == 'completed' and ARGV[2] or outcome, extra, ARGV[rest + 6])
end
local following = {}
if ARGV[rest + 16] == '1' then following = claim_next() end
write_counts()
return {code, s.status, table.concat(wake, ','), following}
