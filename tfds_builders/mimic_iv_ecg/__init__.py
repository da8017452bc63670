"""MIMIC-IV-ECG: about 800,000 diagnostic 12-lead ECGs of 10 s with machine-written statements."""
