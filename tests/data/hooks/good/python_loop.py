import sys
import time

deadline = time.monotonic() + 5
while True:
    line = sys.stdin.readline()
    if not line:
        break
    if "claude" in line or time.monotonic() > deadline:
        sys.exit(0)
