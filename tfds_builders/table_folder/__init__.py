"""Anyone's own cohort: a folder of ECG files with a table of what is known of them, declared by a small YAML file."""
