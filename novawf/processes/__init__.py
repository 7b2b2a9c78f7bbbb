"""Operating-system processes: every tree has a keeper that ends it, every run a sentinel."""
