#!/bin/bash
if grep -q '"stop_hook_active":true'; then exit 0; fi
echo "restarting the session" >&2
exit 2
