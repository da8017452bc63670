"""HEEDB, the Harvard-Emory ECG Database: eleven million ECGs with 12SL statements."""
