"""The tidy results table: one row per number, each with its interval, counts, reasons and where it came from.

What could not be scored stays in the table with the reason, so that nothing is averaged silently. A row whose
`compared_with` is not empty is a paired difference, not a level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecgclip_jax.spec.whole_file import whole_file

SMALLEST_CELL = 10
"""Above `open` access, counts below this and the figures computed from them are not written."""


class Exclusion(StrEnum):
    """Why a number is missing."""

    NO_POSITIVE_IN_TEST = "no_positive_in_test"
    NO_NEGATIVE_IN_TEST = "no_negative_in_test"
    FEW_TEST_POSITIVES = "few_test_positives"
    FEW_TEST_RECORDS = "few_test_records_or_events"
    ONE_CLASS_IN_TRAINING = "one_class_in_training"
    ONE_CLASS_IN_VALIDATION = "one_class_in_validation"
    NO_PROMPT = "no_prompt"
    SCORES_NOT_FINITE = "scores_not_finite"
    NO_CEILING = "stands_on_the_tracing_itself"
    NOT_DEFINED = "not_defined_by_the_data"
    FEW_LABELS = "few_labels_for_a_macro_mean"
    SMALL_CELL = "small_cell_suppressed"


@dataclass(frozen=True)
class ResultRow:
    """One number. Empty text, NaN and None (null in the files) mean that the column does not apply."""

    model: str
    compared_with: str
    """The row is the paired difference `model` - `compared_with` on the same patient draws."""
    protocol: str
    label_fraction: float
    """Share of the training patients whose labels were used; a protocol without training ignores it."""
    n_repeats: int
    """Draws of the labels and training seeds behind the value, which is their mean."""
    cohort: str
    version: str
    split: str
    label: str
    """A concept, `macro`, or the direction of a retrieval."""
    label_group: str
    """`seen` (named in training reports), `unseen`, `unknown`, or `all` for a macro over every label."""
    label_source: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    p_value: float
    """Of a difference that was tested (paired permutation, two-sided), before any correction."""
    chance: float
    """What guessing gives: 0.5, the prevalence, k candidates in n; NaN for differences."""
    n: int | None
    """Records that were scored; of a retrieval the queries."""
    n_positives: int | None
    prevalence: float
    n_patients: int | None
    n_labels: int | None
    """Labels in a macro mean."""
    discarded_draws: float
    """Share of bootstrap draws that were undefined; of a macro: in which some label of its list was."""
    replicates: int
    excluded: str
    """Empty, or why there is no value (an `Exclusion`)."""
    excluded_labels: str
    """Of a macro: JSON object, each label left out and why."""
    note: str
    language: str
    bootstrap_seed: int
    model_seed: int | None
    model_fingerprint: str
    data_fingerprint: str
    prompts_fingerprint: str
    evaluation_fingerprint: str
    code_version: str
    subgroup: str
    """Whom the row is about; empty for everybody."""
    synthetic: bool
    availability: str
    """Of a suite: real_here, obtainable or synthetic; tables never mix them."""
    access: str
    prompt_set: str = ""
    """Of zero-shot: the wordings that asked; a suite scores each row under several sets, the headline one first."""
    prompt_spread: float = math.nan
    """Of the headline set's row: highest minus lowest value over all sets that score the same labels."""
    axis: str = ""
    """What a suite changed for this row: leads, rate_hz or index_ecg; empty: nothing."""
    setting: str = ""
    """To what it was changed."""


_ARROW = {"str": pa.string(), "float": pa.float64(), "bool": pa.bool_(), "int": pa.int64(), "int | None": pa.int64()}


def result_schema() -> pa.Schema:
    """Arrow columns of `results.parquet`, in the order of `ResultRow`."""
    return pa.schema([pa.field(f.name, _ARROW[str(f.type)]) for f in fields(ResultRow)])


def suppress_small_cells(row: ResultRow) -> ResultRow:
    """A row of restricted data without counts below ten, nor anything that gives them away."""
    counts = [row.n, row.n_patients, row.n_positives]
    if row.n is not None and row.n_positives is not None:
        counts.append(row.n - row.n_positives)
    if row.access == "open" or all(count is None or count == 0 or count >= SMALLEST_CELL for count in counts):
        return row
    return replace(
        row,
        value=math.nan,
        ci_low=math.nan,
        ci_high=math.nan,
        chance=math.nan,
        prevalence=math.nan,
        discarded_draws=math.nan,
        n=row.n if row.n is not None and row.n >= SMALLEST_CELL else None,
        n_patients=row.n_patients if row.n_patients is not None and row.n_patients >= SMALLEST_CELL else None,
        n_positives=None,
        excluded=str(Exclusion.SMALL_CELL),
    )


@dataclass(frozen=True)
class Results:
    """Everything an evaluation found, and what a reader must be told about it."""

    rows: tuple[ResultRow, ...]
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    """Where it was written: results.parquet, results.json, predictions and embeddings lie there."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock time per stage."""

    def table(self) -> pa.Table:
        """The tidy table."""
        schema = result_schema()
        columns = ([getattr(row, name) for row in self.rows] for name in schema.names)
        # "As pandas has it": NaN is null.
        arrays = [pa.array(values, f.type, from_pandas=True) for f, values in zip(schema, columns, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def find(self, **conditions: Any) -> list[ResultRow]:
        """Rows whose columns equal the given values; levels only, unless `compared_with` is asked for."""
        conditions = {"compared_with": ""} | conditions
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in conditions.items())]

    def save(self, folder: Path, *, labels_in_json: bool = True) -> Results:
        """Write `results.parquet` and `results.json`; the old ones stay whole until the new ones are.

        Of a suite the JSON holds macro means alone (`labels_in_json=False`): its labels are hundreds of megabytes.
        """
        facts = {"warnings": list(self.warnings), "seconds": dict(self.seconds)}
        table = self.table().replace_schema_metadata({b"evaluation": json.dumps(facts).encode()})
        with whole_file(folder / "results.parquet") as part:
            pq.write_table(table, part)
        content = facts | {"rows": [_json_row(row) for row in self.rows if labels_in_json or row.label == "macro"]}
        write_json(folder / "results.json", content, allow_nan=False)
        return replace(self, folder=folder)


def load_results(folder: str | Path) -> Results:
    """Read what `Results.save` wrote."""
    table = pq.read_table(Path(folder) / "results.parquet")
    facts = json.loads(table.schema.metadata[b"evaluation"])
    floats = [f.name for f in result_schema() if pa.types.is_floating(f.type)]
    rows = tuple(
        ResultRow(**row | {name: math.nan if row[name] is None else row[name] for name in floats})
        for row in table.to_pylist()
    )
    return Results(rows, tuple(facts["warnings"]), Path(folder), facts["seconds"])


def _json_row(row: ResultRow) -> dict[str, Any]:
    return without_nan(vars(row)) | {"excluded_labels": json.loads(row.excluded_labels) if row.excluded_labels else {}}


def without_nan(values: Mapping[str, object]) -> dict[str, Any]:
    """NaN as null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def write_json(path: Path, content: object, *, allow_nan: bool = True) -> Path:
    """Writes JSON, a line for each member of a member, say a row; a broken write never replaces a good file."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=allow_nan).encode
    with whole_file(path) as part:
        part.write_text(_lines(content, encode, levels=2), encoding="utf-8")
    return path


def _lines(content: object, encode: Callable[[object], str], levels: int) -> str:
    """JSON with line breaks in its outer levels; Python's own indentation takes four times as long."""
    if not content or not levels or not isinstance(content, dict | list):
        return encode(content)
    if isinstance(content, dict):
        members = (f"{encode(str(key))}: {_lines(member, encode, levels - 1)}" for key, member in content.items())
        return "{\n" + ",\n".join(members) + "\n}"
    return "[\n" + ",\n".join(_lines(member, encode, levels - 1) for member in content) + "\n]"


def reasons(excluded: Iterable[tuple[str, str]]) -> str:
    """JSON for `excluded_labels`."""
    return json.dumps(dict(sorted(excluded)), ensure_ascii=False)


def models_in_order(rows: Sequence[ResultRow]) -> list[str]:
    """Model names as they first appear."""
    return list(dict.fromkeys(row.model for row in rows))
