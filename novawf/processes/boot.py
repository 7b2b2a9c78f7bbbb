"""Runs one module of this package in a bare interpreter: `python -I -S boot.py MODULE ARGS…`.

`-I -S` keep the environment, the current directory and site-packages out, which is safer and
takes 12 ms and 9 MB instead of several times that. The price is that the package must be put on
the path by hand; nothing else happens here. With MODULE given in full (`novawf.x.y`) and without
`-I -S`, it also starts modules that need the user's own packages.
"""

from __future__ import annotations

# Runs in bare interpreters, where pathlib would cost 1 MB.
# ruff: noqa: PTH100, PTH120
import os
import sys


def main() -> int:
    """Import the module and call its `main(args)`; answers the exit code."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    name, args = sys.argv[1], sys.argv[2:]
    sys.path.insert(0, root)
    module = __import__(name, fromlist=["main"])
    sys.path.pop(0)
    if not sys.flags.isolated and root not in sys.path:
        sys.path.append(root)
    code: int = module.main(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
