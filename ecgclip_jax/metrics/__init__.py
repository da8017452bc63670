"""Exact ranking metrics and patient-level resampling."""
