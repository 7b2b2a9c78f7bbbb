"""NOVAWF: a supervisor that keeps a fleet of autonomous workers working around the clock.

Nothing is imported here: the command line, a Nova and a keeper each pay only for what they use.
"""
