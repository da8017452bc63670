"""One self-contained HTML page per run: it opens offline, prints well, and holds no script."""

from __future__ import annotations

from pathlib import Path

from ecgclip_jax.evaluation.results import Results
from ecgclip_jax.inference import Model
from ecgclip_jax.reporting.gallery import map_section, open_splits, pages_section
from ecgclip_jax.reporting.html import render
from ecgclip_jax.reporting.result_sections import result_sections
from ecgclip_jax.reporting.run_sections import run_section, training_section
from ecgclip_jax.spec.whole_file import whole_file

REPORT_FILE = "report.html"
SMALLEST_MAP = 20
"""Fewer embeddings than this make no map."""


def write_report(workdir: str | Path, data_dir: str | Path, model: Model, results: Results) -> Path:
    """Writes `report.html` into a run folder and returns its path.

    Cohorts above access class `open` contribute numbers only: no waveform, no point per ECG, no original id.
    """
    workdir = Path(workdir)
    folder = workdir / "evaluation"
    sections = [run_section(workdir, model), training_section(workdir), *result_sections(results, folder)]
    shown = open_splits(results, folder, Path(data_dir))
    if sum(len(s.embedding) for s in shown) >= SMALLEST_MAP:
        sections.append(map_section(shown))
    if shown:
        sections.append(pages_section(shown, model.experiment.evaluation.prompt_language))
    page = render(f"{model.experiment.name}: evaluation", model.experiment.summary, _banners(results), sections)
    path = workdir / REPORT_FILE
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _banners(results: Results) -> list[str]:
    synthetic = {row.cohort for row in results.rows if row.synthetic}
    banners = [f"Synthetic results: {', '.join(sorted(synthetic))} is no patient data."] if synthetic else []
    return banners + list(results.warnings)
