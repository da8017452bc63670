"""From prepared cohorts to global batches, deterministic and resumable."""
