"""The workflow of one Nova: its states, its phases, what of them is kept, and the cycle."""
