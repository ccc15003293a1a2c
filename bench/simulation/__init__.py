"""What thousands of machines would take on real clouds' limits, simulated in virtual time."""
