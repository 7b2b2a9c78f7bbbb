import itertools


def numbers():
    n = 0
    while True:
        yield n
        n += 1


def find(limit):
    while True:
        limit -= 1
        if limit < 0:
            return None
        try:
            return next(itertools.islice(numbers(), limit, None))
        except StopIteration:
            raise


print(find(3))
