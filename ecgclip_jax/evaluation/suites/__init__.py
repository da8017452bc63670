"""Suites: many tasks, cohorts and models in one resumable evaluation, with the claims named beforehand."""
