"""One self-contained HTML page per suite: claims first, then every number with its interval, then what is missing."""

from __future__ import annotations

from pathlib import Path

from ecgclip_jax.evaluation.suites.runner import SuiteOutcome
from ecgclip_jax.reporting.html import render
from ecgclip_jax.reporting.model_card import card_sections
from ecgclip_jax.reporting.suite_axes import axis_sections
from ecgclip_jax.reporting.suite_claims import claims_section
from ecgclip_jax.reporting.suite_curves import curve_sections, few_labels_section, stored_tests
from ecgclip_jax.reporting.suite_nulls import null_section
from ecgclip_jax.reporting.suite_operating import operating_section
from ecgclip_jax.reporting.suite_records import error_sections, map_sections
from ecgclip_jax.reporting.suite_rows import SuiteTable, headline, suite_table
from ecgclip_jax.reporting.suite_sections import (
    forest_section,
    hospital_section,
    ladder_sections,
    outside_sections,
    subgroup_section,
)
from ecgclip_jax.reporting.suite_tables import (
    ceiling_section,
    excluded_section,
    heat_section,
    macro_section,
    not_run_section,
)
from ecgclip_jax.reporting.suite_wording import wording_section
from ecgclip_jax.spec.suites import SuiteSpec
from ecgclip_jax.spec.whole_file import whole_file

REPORT_FILE = "report.html"


def write_suite_report(run: Path, folder: Path, spec: SuiteSpec, outcome: SuiteOutcome, data_dir: Path) -> Path:
    """Writes `report.html` into a suite's folder and returns its path.

    Everything is drawn from `results.parquet`, the stored predictions and the run's own files: numbers only, no text
    of a report. Single ECGs, read from `data_dir`, are shown of open cohorts alone.
    """
    table = suite_table(folder, spec)
    tests = {own.name: stored_tests(folder, own) for own in spec.cohorts}
    sections = [
        *([claims_section(outcome.verdicts)] if outcome.verdicts else []),
        *few_labels_section(table, tests),
        *ladder_sections(table),
        macro_section(table),
        *wording_section(table),
        forest_section(table),
        heat_section(table),
        *outside_sections(table),
        *curve_sections(table, tests),
        *operating_section(table),
        *ceiling_section(table),
        *axis_sections(table),
        *subgroup_section(table),
        *hospital_section(table),
        *map_sections(table, folder),
        *error_sections(table, tests, data_dir),
        *null_section(table, outcome.nulls),
        excluded_section(table),
        not_run_section(table, outcome.results.warnings),
        *card_sections(run, table, outcome.verdicts),
    ]
    page = render(f"{spec.name}: {run.name}", f"{headline(table.rows)} {spec.summary}.", _banners(table), sections)
    path = folder / REPORT_FILE
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _banners(table: SuiteTable) -> list[str]:
    synthetic = sorted(set(table.rows[table.rows["synthetic"]]["cohort"]))
    return [f"SYNTHETIC: {', '.join(synthetic)} is no patient data."] if synthetic else []
