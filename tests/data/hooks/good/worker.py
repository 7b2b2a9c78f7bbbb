import subprocess
import sys

if "--worker" in sys.argv:
    print("slow")
    sys.exit(0)
subprocess.Popen([sys.executable, __file__, "--worker"], start_new_session=True)
