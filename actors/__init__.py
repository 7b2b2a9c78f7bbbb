"""Thin shells around novawf: the only code that knows Ray."""
