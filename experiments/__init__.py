"""Experiment files, shipped with the wheel; each defines `variants()` and imports `ecgclip_jax.spec` only."""
