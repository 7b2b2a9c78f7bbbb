"""The audit trail: who changed what, before, after and why, in hash-chained JSON lines."""
