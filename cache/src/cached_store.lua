-- Stores what was loaded, unless the lock ended or was taken away meanwhile, because the truth changed.
-- KEYS: the value, its lock. ARGV: the loader's token, the value, its milliseconds.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
