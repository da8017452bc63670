"""PTB Diagnostic ECG Database: 549 15-lead recordings of 290 people with clinical summaries."""
