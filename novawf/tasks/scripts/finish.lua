-- Ends an attempt and, if asked, claims the next task: one round trip per task.
-- KEYS after those of claiming.lua: 12 completed stream of the Nova 13 result 14 waiting
--      15 dependents 16 cascade 17 wake list of any Nova
-- ARGV after the workflow state: +0 task id +1 epoch +2 verdict (completed, retry, blocked, requeue)
--      +3 outcome +4 retry at ms +5 result JSON or '' +6 detail +7 title +8 description +9 priority
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
  if s.cancel ~= '' and (verdict == 'retry' or verdict == 'requeue') then
    verdict, outcome = 'blocked', 'cancelled'
  end
  local ended = verdict == 'completed' or verdict == 'blocked'
  local done = verdict == 'completed'
  if ended then
    redis.call('XADD', KEYS[12], '*', 'task_id', id, 'title', ARGV[rest + 7],
      'description', ARGV[rest + 8], 'status', verdict, 'priority', ARGV[rest + 9],
      'assignee', nova, 'created_at', s.created, 'updated_at', record_time(s, ARGV[2]),
      done and 'completed_at' or 'outcome', done and record_time(s, ARGV[2]) or outcome,
      'results', cjson.encode(ARGV[rest + 6]))
  else
    redis.call('XADD', KEYS[11], '*', 'task_id', id, 'title', ARGV[rest + 7],
      'description', ARGV[rest + 8], 'status', 'pending', 'priority', ARGV[rest + 9],
      'assignee', nova, 'created_at', s.created, 'updated_at', record_time(s, ARGV[2]),
      'update', ARGV[rest + 6], 'progress_percentage', '')
  end
  redis.call('ZREM', KEYS[9], id)
  if ARGV[rest + 5] ~= '' then redis.call('HSET', KEYS[13], id, ARGV[rest + 5]) end
  s.owner, s.outcome, s.updated, s.cancel = '', outcome, now, ''
  if ended then
    s.status = verdict
    if s.dependents ~= '' then
      k.waiting, k.dependents, k.cascade, k.wake = KEYS[14], KEYS[15], KEYS[16], KEYS[17]
      if done then wake = release_dependents(k, id, now) else redis.call('SADD', k.cascade, id) end
    end
  else
    s.status = 'pending'
    if verdict == 'requeue' then s.limit = int(tonumber(s.limit) + 1) end
    if tonumber(ARGV[rest + 4]) > tonumber(now) then
      s.ready = ARGV[rest + 4]
      redis.call('ZADD', k.delayed, s.ready, id)
    else
      make_ready(k.ready, k.pinned, id, s, now)
    end
    if s.target == '' then
      push_token(KEYS[17])
    elseif s.target ~= nova then
      wake[#wake + 1] = s.target
    end
  end
  note(s, now, verdict, nova, ARGV[rest + 6])
  put_state(id, s)
  bump('in_progress', -1)
  bump(s.status, 1)
  bump('ended:' .. verdict, 1)
  bump('nova:' .. nova .. ':' .. verdict, 1)
  local measured = {'duration', 'claim', 'wake'}
  for i = 1, 3 do
    if ARGV[rest + 9 + i] ~= '' then
      bump(measured[i] .. ':' .. ARGV[rest + 9 + i], 1)
      bump(measured[i] .. ':sum', tonumber(ARGV[rest + 12 + i]))
    end
  end
end
local status, following = s.status, {}  -- claiming may take this very task again
if ARGV[rest + 16] == '1' then
  following = claim_next()
  if following[1] ~= 1 then remember('', '0') end
end
write_all()
return {code, status, table.concat(wake, ','), following}
