"""Meshes, path rules for shardings, host batches to global arrays."""
