"""What the text tower reads of each record: its report, or the statements of it, of the kinds that a run asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from ecgclip_jax.spec.experiment import DataSpec
from ecgclip_jax.text.report_labels import report_concepts
from ecgclip_jax.text.reports import report_statements, training_report
from ecgclip_jax.text.statements import of_kinds, split_statements, training_text

_T = TypeVar("_T")
REPORT_COLUMNS = ("report_raw", "report_clean", "report_language")


@dataclass(frozen=True)
class Reports:
    """Reports of some records, as their cohort's columns have them."""

    raw: Sequence[str]
    clean: Sequence[str]
    languages: Sequence[str]

    @classmethod
    def of_table(cls, table: pa.Table) -> Reports:
        """Of the rows of a cohort's table."""
        return cls(*(table.column(name).to_pylist() for name in REPORT_COLUMNS))

    def texts(self, data: DataSpec) -> list[str]:
        """The whole text that is read of each; a cleaned report is typed line by line of the raw one."""
        kinds = data.statement_kinds
        if data.report_field == "report_raw":
            return self._once(lambda raw, _, language: training_text(raw, language, kinds))
        return self._once(lambda raw, clean, language: training_report(raw, clean, language, kinds))

    def statements(self, data: DataSpec) -> list[tuple[str, ...]]:
        """The single statements that are read of each, in the report's order."""
        if data.report_field == "report_raw":
            return self._once(lambda raw, _, language: of_kinds(split_statements(raw), language, data.statement_kinds))
        return self._once(
            lambda raw, clean, language: of_kinds(report_statements(raw, clean), language, data.statement_kinds)
        )

    def concepts(self) -> list[frozenset[str] | None]:
        """What each report states, by rule; None where there is no report."""
        return self._once(
            lambda raw, clean, language: report_concepts(report_statements(raw, clean), language) if clean else None
        )

    def _once(self, of: Callable[[str, str, str], _T]) -> list[_T]:
        """`of` for every record, asked once for each distinct report."""
        rows = list(zip(self.raw, self.clean, self.languages, strict=True))
        known = {row: of(*row) for row in set(rows)}
        return [known[row] for row in rows]
