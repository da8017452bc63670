"""Icentia11k: days of a single lead with every beat and rhythm annotated."""
