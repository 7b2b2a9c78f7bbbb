import time
while True:
    with open("/tmp/alive", "a") as f:
        f.write("x")
    for _ in range(3):
        if _ == 2:
            break
    time.sleep(1)
