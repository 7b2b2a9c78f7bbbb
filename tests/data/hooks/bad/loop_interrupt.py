import time
try:
    while True:
        time.sleep(1)
except KeyboardInterrupt:
    pass
