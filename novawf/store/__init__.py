"""The store: how to reach it, what it promises, and every key in it."""
