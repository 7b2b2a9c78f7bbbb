-- The cheapest script that writes, for the benchmark of the store.
-- KEYS 1 scratch stream of the Nova that measures
-- Reply: the stream's length, 0. A repeat changes nothing.
redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
return redis.call('XLEN', KEYS[1])
