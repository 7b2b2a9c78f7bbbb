"""Tasks: what one is, the queue they wait in, and the protocol records of every change."""
