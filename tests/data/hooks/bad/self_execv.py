#!/usr/bin/env python3
import os, sys, time
time.sleep(1)
os.execv(sys.executable, [sys.executable] + sys.argv)
