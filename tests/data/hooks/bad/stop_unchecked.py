import json
import sys
if open("TODO.md").read():
    print(json.dumps({"decision": "block", "reason": "more to do"}))
sys.exit(0)
