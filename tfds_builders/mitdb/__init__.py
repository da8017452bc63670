"""MIT-BIH Arrhythmia Database: 48 two-lead recordings of half an hour with every beat annotated."""
