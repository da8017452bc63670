"""Flax encoders with a functional core; they know no mesh and no loss."""
