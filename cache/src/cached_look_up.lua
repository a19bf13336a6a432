-- The value, or the right to load it. KEYS: the value, its lock. ARGV: the asker's token, the lock's milliseconds.
local value = redis.call('GET', KEYS[1])
if value then
    return { 'value', value }
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return { 'load', false }
end
return { 'wait', false }
