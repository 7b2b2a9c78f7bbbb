"""Whether work may start: the verdict, the gate that every claim reads, the emergency stop."""
