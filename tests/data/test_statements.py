"""Drawn statements: whole statements, at least one, in draw order; equal draws whatever the processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgclip_jax.data.batch import tokenize_texts
from ecgclip_jax.data.statements import StatementSampler, keep_statements
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.tokenizer import train_wordpiece

CLS, SEP, STOP, PAD = 2, 3, 9, 0
REPORT = np.array([[CLS, 11, 12, STOP, 21, STOP, 31, 32, SEP, PAD, PAD]], np.int32)
MASK = REPORT != PAD


def kept(draws: list[float], keep_probability: float) -> list[int]:
    uniform = np.full(REPORT.shape, 0.999)
    uniform[0, : len(draws)] = draws
    ids, mask = keep_statements(REPORT, MASK, uniform, STOP, PAD, keep_probability)
    assert (ids[~mask] == PAD).all()
    assert mask[0, : mask.sum()].all(), "what is kept stands at the front"
    return ids[0, mask[0]].tolist()


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([0.1, 0.2, 0.3], [CLS, 11, 12, STOP, 21, STOP, 31, 32, SEP]),
        ([0.3, 0.2, 0.1], [CLS, 31, 32, 21, STOP, 11, 12, STOP, SEP]),
        ([0.9, 0.2, 0.9], [CLS, 21, STOP, SEP]),
        ([0.9, 0.8, 0.7], [CLS, 31, 32, SEP]),
    ],
    ids=["all", "all, other order", "one", "none below the threshold: the lowest stays"],
)
def test_whole_statements_in_the_order_of_their_draws(draws: list[float], expected: list[int]) -> None:
    assert kept(draws, 0.5) == expected


def test_empty_and_single_texts_stay_as_they_are() -> None:
    ids = np.array([[CLS, SEP, PAD, PAD], [CLS, 5, SEP, PAD]], np.int32)
    out, mask = keep_statements(ids, ids != PAD, np.full(ids.shape, 0.99), STOP, PAD, 0.1)
    np.testing.assert_array_equal(out, ids)
    np.testing.assert_array_equal(mask, ids != PAD)


def test_draws_depend_on_seed_and_step_and_equal_texts_share_a_group() -> None:
    texts = ("Sinus rhythm. Left axis deviation. Long QT.", "Sinus rhythm. Short QT.", "Atrial flutter.")
    tokenizer = train_wordpiece(texts, 200)
    sampler = StatementSampler.of(tokenizer, tokenize_texts(tokenizer, texts, 24), 0.3, seed=1)
    rows = np.array([0, 1, 2, 0, 1, 2] * 4, np.int32)
    first, again, later = sampler.sample(5, rows), sampler.sample(5, rows), sampler.sample(6, rows)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != later[0]).any()
    assert (sampler.sample(5, rows)[0] != replace(sampler, seed=2).sample(5, rows)[0]).any()
    ids, _, group = first
    for i in range(len(rows)):
        for j in range(len(rows)):
            assert (group[i] == group[j]) == (ids[i].tolist() == ids[j].tolist())
    statements = {s.strip() for t in texts for s in t.lower().split(".") if s.strip()}
    for row in ids:
        decoded = tokenizer.decode(row, skip_special_tokens=True).split(".")
        assert {s.strip() for s in decoded if s.strip()} <= statements


def test_a_tokenizer_without_full_stop_is_refused() -> None:
    tokenizer = train_wordpiece(["sinus rhythm"], 100)
    with pytest.raises(UserError, match=r"token for '\.'"):
        StatementSampler.of(tokenizer, tokenize_texts(tokenizer, ["sinus rhythm"], 8), 0.5, seed=0)
