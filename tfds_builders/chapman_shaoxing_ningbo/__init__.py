"""Chapman-Shaoxing-Ningbo: 45,152 12-lead ECGs of 10 s with SNOMED CT codes."""
