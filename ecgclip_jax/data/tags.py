"""Several texts of each ECG in a step: statements of its report, drawn without repetition (FG-CLEP's tags).

The draw is a function of seed, step and row of the global batch, so it depends neither on the processes nor on
micro-batches, and a resume needs no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from ecgclip_jax.contracts import TextRows, TextTokens
from ecgclip_jax.data.batch import TokenTable, tokenize_texts
from ecgclip_jax.data.index import RunIndex
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.tokenizer import TextTokenizer

_STREAM = 4
"""Beside the streams of `ecgclip_jax.data.order` and `statements`, so that no draw repeats another."""
_NO_STATEMENT = 0
"""Row of the empty text, which stands where a report has no more statements."""


@dataclass(frozen=True, eq=False)
class StatementTable:
    """The distinct statements of a run's reports, and which of them each record's report holds."""

    texts: tuple[str, ...]
    """Sorted; the first is empty. `TextRows` of a run with several texts per ECG are rows of it."""
    group: Int32[np.ndarray, " texts"]
    """Equal for statements that differ in case only."""
    first: Int64[np.ndarray, " records_and_end"]
    row: Int32[np.ndarray, " total"]
    """Rows of `texts`; those of record i are `row[first[i] : first[i + 1]]`, in the report's order."""


def make_statement_table(index: RunIndex) -> StatementTable:
    """Splits the report of every record, or the one it is paired with in the null world; once, when a run is opened.

    Raises:
        UserError: no report of the run holds a statement.
    """
    own = index.reports.statements(index.data)
    of_record = [own[row] for row in index.report_row.tolist()]
    texts = ("", *sorted({statement for statements in of_record for statement in statements}))
    if len(texts) == 1:
        raise UserError("data.texts_per_ecg is above 1, but no report of the run holds a statement")
    row = {text: k for k, text in enumerate(texts)}
    folded: dict[str, int] = {}
    group = [folded.setdefault(text.casefold(), k) for k, text in enumerate(texts)]
    counts = np.fromiter((len(statements) for statements in of_record), np.int64, len(of_record))
    return StatementTable(
        texts=texts,
        group=np.asarray(group, np.int32),
        first=np.concatenate([[0], np.cumsum(counts)]),
        row=np.fromiter((row[s] for statements in of_record for s in statements), np.int32, int(counts.sum())),
    )


@dataclass(frozen=True, eq=False)
class TagSampler:
    """Draws K statements for every row of a global batch."""

    table: StatementTable
    tokens: TokenTable | None
    """Of the table's texts; None gives rows of the table (for a text tower that is cached)."""
    texts_per_ecg: int
    seed: int

    def draw(
        self, step: int, record_row: Int32[np.ndarray, " batch_global"], local: Int32[np.ndarray, " batch_local"]
    ) -> tuple[TextTokens | TextRows, Int32[np.ndarray, "batch_local k"], Bool[np.ndarray, "batch_local k"]]:
        """Texts, their groups and which of them are statements, of the rows `local` of a global batch.

        A report with fewer than K statements gives all of them; empty texts, not valid, fill the rest.
        """
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, _STREAM, step))))
        draws = generator.random((len(record_row), self.texts_per_ecg))[local]
        rows = draw_rows(self.table, record_row[local], draws)
        texts = TextRows(cast("Any", rows)) if self.tokens is None else self._tokenised(self.tokens, rows)
        return texts, self.table.group[rows], rows != _NO_STATEMENT

    def _tokenised(self, tokens: TokenTable, rows: Int32[np.ndarray, "batch k"]) -> TextTokens:
        return TextTokens(cast("Any", tokens.ids[rows].astype(np.int32)), cast("Any", tokens.mask[rows]))


def make_tag_sampler(index: RunIndex, tokenizer: TextTokenizer | None, max_tokens: int) -> TagSampler:
    """The sampler of a run with `data.texts_per_ecg` above 1; every distinct statement is tokenised once, here.

    Raises:
        UserError: no report of the run holds a statement.
    """
    table = make_statement_table(index)
    tokens = None if tokenizer is None else tokenize_texts(tokenizer, table.texts, max_tokens)
    return TagSampler(table, tokens, index.data.texts_per_ecg, index.seed)


def draw_rows(
    table: StatementTable, records: Int32[np.ndarray, " batch"], draws: Float[np.ndarray, "batch k"]
) -> Int32[np.ndarray, "batch k"]:
    """Rows of up to K distinct statements of each record, every subset as likely, from uniform draws in [0, 1).

    Floyd's algorithm (Bentley & Floyd, Comm. ACM 30, 1987): a draw per text, whatever the number of statements.
    """
    first = table.first[records]
    count = table.first[records + 1] - first
    chosen = np.full(draws.shape, -1, np.int64)
    for i in range(draws.shape[1]):
        last = np.maximum(count - draws.shape[1], 0) + i
        drawn = (draws[:, i] * (last + 1)).astype(np.int64)
        taken = (chosen[:, :i] == drawn[:, None]).any(axis=1)
        chosen[:, i] = np.where(last < count, np.where(taken, last, drawn), -1)
    position = np.where(chosen >= 0, first[:, None] + chosen, 0)
    return np.where(chosen >= 0, table.row[position], _NO_STATEMENT).astype(np.int32)
