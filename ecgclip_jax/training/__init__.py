"""State, optimiser, one jitted step, and the loop around it."""
