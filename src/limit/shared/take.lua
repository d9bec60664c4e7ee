-- Takes tokens from the limits of one caller, from all of them or from none.
-- KEYS[1]: the hash of the caller: a field for each limit, "TAT FULL" in microseconds of the server.
-- ARGV[1]: the number of live processes. Then for each limit eight values: its field, the time between two requests in
-- microseconds, its burst, the life of a lease in microseconds (0: none is wanted), what the request costs, how many
-- tokens are wanted, how many are given back, and the time at which those were taken.
-- Returns the time, and for each limit: tokens, slots, time until the first slot, tokens left, time until the bucket is
-- full, time until the request conforms.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local live = tonumber(ARGV[1])
local limits, refused = {}, false
for at = 2, #ARGV, 8 do
  local limit = {
    field = ARGV[at], step = tonumber(ARGV[at + 1]), burst = tonumber(ARGV[at + 2]), life = tonumber(ARGV[at + 3]),
    cost = tonumber(ARGV[at + 4]), want = tonumber(ARGV[at + 5])
  }
  local tat, full = 0, 0
  local held = redis.call('HGET', KEYS[1], limit.field)
  if held then
    local one, other = string.match(held, '^(%S+) (%S+)$')
    tat, full = tonumber(one) or 0, tonumber(other) or 0
  end
  -- Tokens from before the bucket was full are worth nothing.
  local back, since = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  if back > 0 and since >= full then
    tat = tat - back * limit.step
    limit.changed = true
  end
  if tat <= now then
    tat, full = now, now
  end
  -- The clock may have gone back with another server.
  local most = now + limit.burst * limit.step + limit.life
  if tat > most then
    tat = most
    limit.changed = true
  end
  limit.tat, limit.full = tat, full
  -- A thousandth of a token is an error of rounding.
  limit.left = math.floor((now + limit.burst * limit.step - tat) / limit.step + 0.001)
  if limit.left < limit.cost then
    refused = true
  end
  limits[#limits + 1] = limit
end
local found, longest = {string.format('%.0f', now)}, 0
for _, limit in ipairs(limits) do
  local tokens, slots, wait = 0, 0, 0
  local lacks = limit.left < limit.cost
  if lacks then
    wait = limit.tat + limit.cost * limit.step - limit.burst * limit.step - now
  elseif not refused then
    tokens = math.min(limit.want, math.max(limit.cost, math.floor(limit.left / (2 * live))), limit.left)
  end
  local tat = limit.tat + tokens * limit.step
  -- When little is left, what is still to come is shared out.
  local first = tat + limit.step - limit.burst * limit.step - now
  if limit.life > 0 and (lacks or not refused) and limit.left - tokens < live then
    local share = math.max(1, math.ceil(limit.life / (limit.step * live)))
    local ahead = math.floor((limit.life - first) / limit.step) + 1
    slots = math.max(0, math.min(share, ahead))
    tat = tat + slots * limit.step
  end
  if tat ~= limit.tat or limit.changed then
    redis.call('HSET', KEYS[1], limit.field, string.format('%.2f %.0f', tat, limit.full))
    longest = math.max(longest, tat - now + limit.life)
  end
  local left = math.max(0, math.floor((now + limit.burst * limit.step - tat) / limit.step + 0.001))
  for _, value in ipairs({tokens, slots, first, left, tat - now, wait}) do
    found[#found + 1] = string.format('%.0f', math.max(0, value))
  end
end
if longest > 0 then
  -- No earlier than another limit of the caller needs it.
  local kept = redis.call('PTTL', KEYS[1])
  local needed = math.ceil(longest / 1000) + 1000
  if kept < needed then
    redis.call('PEXPIRE', KEYS[1], needed)
  end
end
return found
