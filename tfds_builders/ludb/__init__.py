"""LUDB: 200 12-lead ECGs of 10 s with P, QRS and T boundaries in every lead."""
