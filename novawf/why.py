"""Why something waits, in one sentence, and what would release it."""
