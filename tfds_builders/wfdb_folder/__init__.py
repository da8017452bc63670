"""Anyone's own cohort: a folder of WFDB records whose headers say what is known, declared by a small YAML file."""
