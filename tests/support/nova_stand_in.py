"""Holds a keeper's connection as a Nova does, to be killed: SOCKET, then the request as JSON."""

import asyncio
import json
import sys

from novawf.processes.keeper import KeeperClient, SpawnRequest


async def main() -> None:
    """Spawn, say so, stay."""
    kept = await KeeperClient(sys.argv[1]).spawn(SpawnRequest(**json.loads(sys.argv[2])))
    print(kept.pid, flush=True)
    await kept.wait()


if __name__ == "__main__":
    asyncio.run(main())
