-- Takes places in a bucket, by the generic cell rate algorithm.
--
-- The bucket is one number: the time, in microseconds, at which it will be full again. It forgets itself soon after.
-- KEYS[1]  the bucket
-- ARGV     microseconds for one place · places of an untouched bucket · places wanted · the time, or 0 for the server's
-- Answers  places taken · places left · microseconds to wait for one when none was taken
local interval, burst, wanted, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
-- How much of the bucket is gone, as the time until it is full again. Less than nothing: it is full. More than there is:
-- the clock was set back, or the limit lowered. Small numbers from here on, which keep their fractions.
local whole = interval * burst
local gone = tonumber(redis.call('GET', KEYS[1]) or now) - now
gone = math.min(math.max(gone, 0), whole)
local free = math.floor((whole - gone + 0.5) / interval)
if free < 1 then
    return { 0, 0, math.ceil(gone + interval - whole) }
end
local taken = math.min(wanted, free)
gone = gone + taken * interval
-- Not in that moment: the time that the caller told may go by more slowly than the server's.
redis.call('SET', KEYS[1], now + gone, 'PX', math.ceil(gone / 1000) + 10000)
return { taken, free - taken, 0 }
