"""The PhysioNet/CinC Challenge 2021's public training set: eight databases, 88,253 12-lead ECGs, SNOMED CT codes."""
