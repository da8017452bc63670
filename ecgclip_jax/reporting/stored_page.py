"""A stored ECG as a page, with what its record says of it."""

from __future__ import annotations

from matplotlib.figure import Figure

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.explain.ecg_page import draw_ecg_page
from ecgclip_jax.reporting.result_sections import concept_name


def stored_page(opened: CohortSplit, row: int) -> Figure:
    """The stored signal (not a model's input) of a row of a split, for open cohorts only."""
    record = opened.table.slice(row, 1).to_pylist()[0]
    return draw_ecg_page(
        opened.read_ecg([row])[0],
        title=f"{opened.cohort} {record['record_id']}",
        lines=(f"labels: {', '.join(concept_name(code) for code in record['label_codes'])}",),
        quality_flags=tuple(record["quality_flags"]),
        rate_hz_source=float(record["rate_hz_source"]),
        band_hz=(float(record["band_low_hz"]), float(record["band_high_hz"])),
    )
