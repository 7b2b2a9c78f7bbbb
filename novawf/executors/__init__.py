"""How work is done: each executor turns a `Work` into an `Outcome`, outside the Nova's process."""
