-- The count of revocations, as of a moment that somebody knows.
--
-- KEYS[1] the count. It lives for a fraction of a second after it was read at its source, so that one that nobody could
-- correct is soon gone. ARGV: what to do, then its own.
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
if ARGV[1] == 'read' then
    -- Answers the server's time in milliseconds, the count or nothing, and the milliseconds it has left.
    local count = redis.call('GET', KEYS[1])
    return { now(), count, redis.call('PTTL', KEYS[1]) }
elseif ARGV[1] == 'confirm' then
    -- ARGV: the count, which was read at its source after the server's time ARGV[3]; the time at which it is too old.
    local known = tonumber(redis.call('GET', KEYS[1]) or '-1')
    if tonumber(ARGV[2]) >= known and tonumber(ARGV[3]) > now() then
        redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
    end
    return 0
else
    -- 'raise'. ARGV: a higher count. It is no news of how recent the count is.
    local known = redis.call('GET', KEYS[1])
    if known and tonumber(ARGV[2]) > tonumber(known) then
        redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
    end
    return 0
end
