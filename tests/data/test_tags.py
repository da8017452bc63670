"""Several texts per ECG: distinct statements of its report, drawn alike by all processes, masked where few."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import chisquare
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.contracts import Batch, TextRows, TextTokens
from ecgclip_jax.data.index import RunIndex, build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.data.tags import StatementTable, draw_rows, make_statement_table
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.spec.statements import STATEMENT_KINDS
from ecgclip_jax.text.tokenizer import encode_texts, train_wordpiece

REPORTS = (
    "Sinus rhythm. Left axis deviation. Long QT. T wave inversion. Low voltage.",
    "SINUS RHYTHM; long QT",
    "Atrial flutter.",
    "",
    "Sinus rhythm. Sinus rhythm. Paced rhythm. Rate 72 /min, QRS 0.12 s.",
)
STATEMENTS = (
    {"Sinus rhythm", "Left axis deviation", "Long QT", "T wave inversion", "Low voltage"},
    {"SINUS RHYTHM", "long QT"},
    {"Atrial flutter"},
    set(),
    {"Sinus rhythm", "Paced rhythm", "Rate 72 /min, QRS 0.12 s"},
)
N = 40


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> RunIndex:
    data_dir = tmp_path_factory.mktemp("tags")
    write_cohort(data_dir, {"train": [tiny_record(n, report=REPORTS[n % 5]) for n in range(N)]})
    return make_index(data_dir)


def make_index(data_dir: Path, **changes: object) -> RunIndex:
    data = DataSpec(sources=(Source(cohort="tiny"),), texts_per_ecg=3, min_report_words=0)
    return build_index(data.replace(changes), data_dir, seed=5)


def take(index: RunIndex, n: int, start: int = 0, *, tokens: bool = True, **changes: object) -> list[Batch]:
    tokenizer = train_wordpiece(index.texts, 120) if tokens else None
    pipeline = TrainPipeline(index, tokenizer, **({"max_tokens": 16, "batch_global": 20} | changes))  # type: ignore[arg-type]
    stream = pipeline.batches(start)
    batches = list(itertools.islice(stream, n))
    stream.close()
    return batches


def own_statements(index: RunIndex, batch: Batch) -> list[set[str]]:
    numbers = [int(record[1:]) for record in index.column("record_id")]
    return [STATEMENTS[numbers[row] % 5] for row in batch.record_row]


def test_texts_are_distinct_statements_of_the_ecgs_own_report(index: RunIndex) -> None:
    table = make_statement_table(index)
    assert table.texts == ("", *sorted(set.union(*STATEMENTS)))
    for batch in take(index, 4, tokens=False):
        assert isinstance(batch.texts, TextRows)
        assert batch.texts.index.shape == batch.text_valid.shape == batch.text_group.shape == (20, 3)
        for rows, valid, statements in zip(
            batch.texts.index, batch.text_valid, own_statements(index, batch), strict=True
        ):
            texts = [table.texts[row] for row in rows]
            drawn = {text for text, v in zip(texts, valid, strict=True) if v}
            assert len(drawn) == valid.sum() == min(3, len(statements))
            assert drawn <= statements
            assert all(text == "" for text, v in zip(texts, valid, strict=True) if not v)


def test_tokens_are_those_of_the_drawn_rows(index: RunIndex) -> None:
    tokenizer, table = train_wordpiece(index.texts, 120), make_statement_table(index)
    for with_tokens, with_rows in zip(take(index, 2), take(index, 2, tokens=False), strict=True):
        assert isinstance(with_tokens.texts, TextTokens)
        assert isinstance(with_rows.texts, TextRows)
        texts = [table.texts[row] for row in np.asarray(with_rows.texts.index).ravel()]
        ids, mask = encode_texts(tokenizer, texts, 16)
        np.testing.assert_array_equal(with_tokens.texts.ids, ids.reshape(20, 3, 16))
        np.testing.assert_array_equal(with_tokens.texts.mask, mask.reshape(20, 3, 16))
        assert with_tokens.texts.mask.any(axis=-1).all(), "no text without a token: attention over none is NaN"
        np.testing.assert_array_equal(with_tokens.text_group, with_rows.text_group)


def test_equal_statements_are_one_group_whatever_their_case(index: RunIndex) -> None:
    table = make_statement_table(index)
    for batch in take(index, 3, tokens=False):
        texts = [table.texts[row].casefold() for row in np.asarray(batch.texts.index).ravel()]  # type: ignore[union-attr]
        group = np.asarray(batch.text_group).ravel().tolist()
        assert len(set(zip(texts, group, strict=True))) == len(set(texts)) == len(set(group))
    assert {"Long QT", "long QT"} <= set(table.texts)


def test_draws_depend_on_seed_and_step_alone(index: RunIndex) -> None:
    whole = take(index, 4)
    jax.tree.map(np.testing.assert_array_equal, whole[2:], take(index, 2, start=2))
    again = {}
    for batch in take(index, 20):
        for row, ids in zip(batch.record_row.tolist(), batch.texts.ids.tolist(), strict=True):  # type: ignore[union-attr]
            again.setdefault(row, []).append(ids)
    five_statements = [i for i, n in enumerate(index.column("record_id")) if int(n[1:]) % 5 == 0]
    assert all(len({str(ids) for ids in again[row]}) > 1 for row in five_statements), "every step draws anew"


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_processes_hold_rows_of_the_same_draw(index: RunIndex, micro_batches: int) -> None:
    (whole,) = take(index, 1, start=3)
    parts = [take(index, 1, 3, process_index=p, process_count=2, micro_batches=micro_batches)[0] for p in range(2)]
    row_of = {int(r): i for i, r in enumerate(whole.record_row)}
    for part in parts:
        here = [row_of[int(r)] for r in part.record_row]
        np.testing.assert_array_equal(part.texts.ids, whole.texts.ids[here])  # type: ignore[union-attr]
        np.testing.assert_array_equal(part.text_group, whole.text_group[here])
        np.testing.assert_array_equal(part.text_valid, whole.text_valid[here])


def test_every_subset_of_a_report_is_as_likely() -> None:
    table = StatementTable(
        ("", *"abcde"), np.arange(6, dtype=np.int32), np.array([0, 5]), np.arange(1, 6, dtype=np.int32)
    )
    draws = np.random.default_rng(0).random((20_000, 3))
    rows = draw_rows(table, np.zeros(len(draws), np.int32), draws)
    counts = Counter(tuple(sorted(row)) for row in rows.tolist())
    assert set(counts) == set(itertools.combinations(range(1, 6), 3))
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_statements_follow_the_report_that_a_record_is_paired_with(tmp_path: Path) -> None:
    write_cohort(
        tmp_path, {"train": [tiny_record(n, report=f"Finding {chr(97 + n)}. Sinus rhythm.") for n in range(8)]}
    )
    index = make_index(tmp_path, null_world="shuffled_reports")
    table = make_statement_table(index)
    for record, paired in enumerate(index.report_row.tolist()):
        statements = {table.texts[row] for row in table.row[table.first[record] : table.first[record + 1]]}
        assert f"Finding {chr(97 + paired)}" in statements
        assert f"Finding {chr(97 + record)}" not in statements


def test_lines_of_a_machines_report_are_statements_though_cleaning_joined_them(tmp_path: Path) -> None:
    raw = "*** AUTOMATED ANALYSIS ***\nSINUS RHYTHM\nLEFT AXIS DEVIATION\nUNCONFIRMED REPORT"
    record = tiny_record(0, report_raw=raw, report_clean="SINUS RHYTHM LEFT AXIS DEVIATION")
    write_cohort(tmp_path, {"train": [record, tiny_record(1, report_raw=raw, report_clean="sinus rhythm. left axis.")]})
    table = make_statement_table(make_index(tmp_path))
    assert table.texts == ("", "LEFT AXIS DEVIATION", "SINUS RHYTHM", "left axis", "sinus rhythm")
    raw_table = make_statement_table(make_index(tmp_path, report_field="report_raw", statement_kinds=STATEMENT_KINDS))
    assert "UNCONFIRMED REPORT" in raw_table.texts


def test_reports_without_any_statement_are_said(tmp_path: Path) -> None:
    write_cohort(tmp_path, {"train": [tiny_record(n, report="") for n in range(4)]})
    with pytest.raises(UserError, match="no report of the run holds a statement"):
        make_statement_table(make_index(tmp_path))


def test_two_ways_to_draw_statements_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="leave it at 1"):
        DataSpec(sources=(Source(cohort="tiny"),), texts_per_ecg=2, statement_keep_probability=0.5)
