"""The synthetic cohort: a world whose truth is known, on which claims can be checked end to end."""
