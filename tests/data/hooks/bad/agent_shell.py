import os
prompt = "next"
os.system(f"claude -p '{prompt}' > /tmp/out")
