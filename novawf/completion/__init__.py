"""The completion routine: celebration, reflection, transition planning."""
