-- Takes places in a bucket, by the generic cell rate algorithm.
--
-- The bucket is one number: the time, in microseconds, at which it will be full again. It forgets itself then.
-- KEYS[1]  the bucket
-- ARGV     microseconds for one place · places of an untouched bucket · places wanted · the time, or 0 for the server's
-- Answers  places taken · places left · microseconds to wait for one when none was taken
local interval, burst, wanted, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local furthest = now + interval * burst
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
-- Before now: it is full. Further than ever possible: the clock was set back, or the limit lowered.
full_at = math.min(math.max(full_at, now), furthest)
local free = math.floor((furthest - full_at) / interval + 0.000001)
if free < 1 then
    return { 0, 0, math.ceil(full_at + interval - furthest) }
end
local taken = math.min(wanted, free)
full_at = full_at + taken * interval
redis.call('SET', KEYS[1], full_at, 'PX', math.ceil((full_at - now) / 1000))
return { taken, free - taken, 0 }
