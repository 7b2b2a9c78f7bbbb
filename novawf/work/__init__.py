"""Finding work: discoverers, their ranking, and the built-in jobs of idle time."""
