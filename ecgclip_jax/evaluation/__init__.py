"""From a checkpoint to numbers that can be trusted."""
