"""A prefix for Lua scripts that refuses keys which were not declared, as Dragonfly does.

Valkey lets a script touch any key, so a missing declaration would show only in production. The
prefix gives the script a local `redis` whose `call` and `pcall` compare each command's key
arguments with KEYS. It is one line, so that line numbers in errors stay right.
"""

from __future__ import annotations

FIRST_ARGUMENT = """
GET SET SETNX GETDEL INCR INCRBY DECR DECRBY STRLEN
HSET HSETNX HGET HMGET HDEL HINCRBY HEXISTS HGETALL HLEN HKEYS HVALS HSTRLEN
ZADD ZREM ZRANGE ZRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE ZRANGEBYLEX ZREMRANGEBYSCORE
ZREMRANGEBYRANK ZREMRANGEBYLEX ZCARD ZSCORE ZMSCORE ZCOUNT ZLEXCOUNT ZRANK ZINCRBY ZPOPMIN ZPOPMAX
LPUSH RPUSH LPOP RPOP LLEN LTRIM LRANGE LINDEX LREM
XADD XLEN XTRIM XRANGE XREVRANGE XDEL XACK
SADD SREM SMEMBERS SISMEMBER SPOP SCARD SRANDMEMBER
EXPIRE PEXPIRE EXPIREAT PEXPIREAT TTL PTTL PERSIST TYPE
""".split()  # noqa: SIM905 - seventy names read better as lines of words
"""Commands whose only key is their first argument."""

ALL_ARGUMENTS = ("DEL", "UNLINK", "EXISTS", "TOUCH", "MGET")
NO_KEY = ("TIME",)


def with_declared_keys(source: str) -> str:
    """`source` with the checking `redis` in front."""
    return _PREFIX + source


def _table() -> str:
    kinds = [(FIRST_ARGUMENT, 1), (ALL_ARGUMENTS, 2), (NO_KEY, 0)]
    return ",".join(f"{name}={kind}" for names, kind in kinds for name in names)


_PREFIX = (
    " ".join(
        f"""
local redis = (function(real)
  local kinds = {{{_table()}}}
  local declared = {{}}
  for _, key in ipairs(KEYS) do declared[key] = true end
  local function check(command, ...)
    local name = string.upper(command)
    local kind = kinds[name]
    if not kind then error('shim: unknown command ' .. name .. '; add it to lua_shim.py', 0) end
    local last = 0
    if kind == 1 then last = 1 elseif kind == 2 then last = select('#', ...) end
    for i = 1, last do
      local key = tostring((select(i, ...)))
      if not declared[key] then error('shim: undeclared key ' .. key .. ' in ' .. name, 0) end
    end
  end
  local shim = {{}}
  for name, value in pairs(real) do shim[name] = value end
  shim.call = function(...) check(...) return real.call(...) end
  shim.pcall = function(...) check(...) return real.pcall(...) end
  return shim
end)(redis)
local server = nil
""".split()
    )
    + " "
)
