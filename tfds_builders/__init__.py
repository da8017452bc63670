"""One folder per cohort in TFDS's own layout; `common` holds what they share."""
