"""Personalities: the profile of each Nova and the rhythm that follows from it."""
