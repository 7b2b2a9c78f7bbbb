"""`client.py APP MODE NUMBER`: submits to one system and prints what it measured as JSON.

The app is imported here as its workers import it: tasks are known by the name of their module.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys

if __name__ == "__main__":
    answer = importlib.import_module(sys.argv[1]).main(sys.argv[2], int(sys.argv[3]))
    if inspect.isawaitable(answer):
        answer = asyncio.run(answer)
    print(json.dumps(answer))
