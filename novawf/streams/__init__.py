"""Streams from outside: reading by consumer group, wake signals, schedules, trimming."""
