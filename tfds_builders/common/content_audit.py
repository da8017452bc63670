"""What a built cohort holds, counted over recordings: labels, people, reports, copies, what its authors promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfds_builders.common.cohort import CohortFacts
from tfds_builders.common.leakage import MIN_PATIENTS_PER_CLASS, age_band, leakage_of_records

COLUMNS: Final = (
    "record_id",
    "window_index",
    "n_windows",
    "patient_id",
    "patient_id_known",
    "age_years",
    "sex",
    "report_raw",
    "report_clean",
    "report_language",
    "label_codes",
    "site",
    "rate_hz_source",
    "lead_present",
    "quality_flags",
    "waveform_sha256",
)
"""Of `records-<split>.parquet`; `split` is added."""


def content_audit(records: pa.Table, facts: CohortFacts, source_rows: int) -> dict[str, Any]:
    """Counts for `audit.json`.

    Args:
        records: `COLUMNS` and `split` of every stored window.
        facts: the cohort's.
        source_rows: records in the source, dropped ones included.
    """
    recordings = records.filter(_first_windows(records))
    known = recordings.filter(recordings["patient_id_known"])
    labels = Counter(code for codes in recordings["label_codes"].to_pylist() for code in dict.fromkeys(codes))
    size = {
        "ecgs": records.num_rows,
        "recordings": recordings.num_rows,
        "recordings_of_several_windows": int(pc.sum(pc.greater(recordings["n_windows"], 1)).as_py() or 0),
        "patients": pc.count_distinct(known["patient_id"]).as_py(),
        "recordings_of_unknown_patients": recordings.num_rows - known.num_rows,
    }
    return {
        "size": size,
        "labels": dict(labels.most_common()),
        "recordings_without_label": sum(not codes for codes in recordings["label_codes"].to_pylist()),
        "people": _people(recordings),
        "reports": _reports(recordings),
        "sites": _counted(recordings["site"]),
        "source_rates_hz": _counted(recordings["rate_hz_source"]),
        "leads_present": _leads(records),
        "flags": dict(Counter(f for flags in records["quality_flags"].to_pylist() for f in flags).most_common()),
        "copies": _copies(records),
        "published": _published(facts, source_rows, size, labels, recordings),
        "leakage": _leakage(recordings, facts),
    }


def _first_windows(records: pa.Table) -> pa.Array:
    """One row per recording: an empty first window is not stored, so the first that is."""
    ids, first = records["record_id"].to_pylist(), dict[str, int]()
    for row, record_id in enumerate(ids):
        first.setdefault(record_id, row)
    chosen = np.zeros(len(ids), bool)
    chosen[list(first.values())] = True
    return pa.array(chosen)


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = Counter(f"{value:g}" if isinstance(value, float) else str(value) for value in column.to_pylist())
    return dict(counts.most_common(50))


def _people(recordings: pa.Table) -> dict[str, Any]:
    ages = recordings["age_years"].to_numpy()
    known = ages[~np.isnan(ages)]
    cells = Counter(zip((age_band(a) or "unknown" for a in ages.tolist()), recordings["sex"].to_pylist(), strict=True))
    bands = ["0-17", "18-39", "40-59", "60-79", "80 and over", "unknown"]
    return {
        "age_years_quartiles": [round(float(q), 1) for q in np.quantile(known, (0.25, 0.5, 0.75))]
        if len(known)
        else [],
        "age_by_sex": {
            band: {sex: cells[band, sex] for sex in ("female", "male", "unknown")}
            for band in bands
            if any(cells[band, sex] for sex in ("female", "male", "unknown"))
        },
    }


def _reports(recordings: pa.Table) -> dict[str, Any]:
    raw, clean = recordings["report_raw"], recordings["report_clean"]
    empty = int(pc.sum(pc.equal(pc.utf8_trim_whitespace(raw), "")).as_py() or 0)
    left = int(pc.sum(pc.equal(clean, "")).as_py() or 0)
    written = clean.filter(pc.not_equal(clean, ""))
    return {
        "empty": empty,
        "boilerplate_only": left - empty,
        "distinct_after_cleaning": pc.count_distinct(written).as_py(),
        "languages": _counted(recordings["report_language"].filter(pc.not_equal(clean, ""))),
    }


def _leads(records: pa.Table) -> dict[str, int]:
    """Windows by number of leads that hold any sample."""
    present = records["lead_present"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 12)
    numbers, counts = np.unique(present.sum(axis=1), return_counts=True)
    return {str(int(n)): int(c) for n, c in zip(numbers, counts, strict=True)}


def _copies(records: pa.Table) -> dict[str, int]:
    """Waveforms that stand under more than one record id."""
    groups = records.group_by("waveform_sha256").aggregate(
        [("record_id", "count_distinct"), ("split", "count_distinct")]
    )
    several = groups.filter(pc.greater(groups["record_id_count_distinct"], 1))
    return {
        "waveforms": several.num_rows,
        "recordings": int(pc.sum(several["record_id_count_distinct"]).as_py() or 0),
        "waveforms_in_several_splits": int(pc.sum(pc.greater(several["split_count_distinct"], 1)).as_py() or 0),
    }


def _published(
    facts: CohortFacts, source_rows: int, size: Mapping[str, int], labels: Mapping[str, int], recordings: pa.Table
) -> dict[str, dict[str, int]]:
    """What the authors state, and the same counted here; `found` counts what was kept, `records` all source rows."""
    found: dict[str, int] = {"records": source_rows, "patients": size["patients"]}
    found |= {f"records/{split}": n for split, n in _counted(recordings["split"]).items()}
    found |= {f"label/{code}": n for code, n in labels.items()}
    return {
        name: {"published": published, "found": found.get(name, 0)}
        for name, published in facts.published_counts.items()
    }


def _leakage(recordings: pa.Table, facts: CohortFacts) -> list[dict[str, Any]]:
    """The gauge's results; the words it goes by only of open cohorts."""
    written = recordings.filter(pc.not_equal(recordings["report_clean"], ""))
    if pc.count_distinct(written["patient_id"]).as_py() < 2 * MIN_PATIENTS_PER_CLASS:
        return []
    # One row stands for a recording here, whichever of its windows was the first to be stored.
    column = written.schema.get_field_index("window_index")
    first = written.set_column(column, "window_index", pa.array(np.zeros(written.num_rows, np.int32)))
    results = []
    for told in leakage_of_records(first):
        row = asdict(told)
        row["telling"] = list(told.telling) if facts.access == "open" else []
        row["classes"] = list(told.classes)
        results.append({n: _rounded(v) for n, v in row.items()})
    return results


def _rounded(value: Any) -> Any:
    """Three decimals; None for NaN, which JSON has not."""
    if not isinstance(value, float):
        return value
    return None if np.isnan(value) else round(value, 3)
