#!/usr/bin/env python3
import json, sys
data = json.load(sys.stdin)
path = data["tool_input"].get("file_path", "")
if path.endswith(".env"):
    print("Access to .env is not allowed", file=sys.stderr)
    sys.exit(1)
