"""Prompt ensembles, scores that ignore the batch, and ranks counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ecgclip_jax.evaluation.protocols.retrieval import RECALL_AT, ecg_to_text, text_to_ecg
from ecgclip_jax.evaluation.protocols.zero_shot import normalise, prompt_matrix, zero_shot_scores

_VECTORS = {"a": [1.0, 0, 0], "b": [0, 2.0, 0], "c": [0, 0, 1.0]}


def _encode(texts: list[str]) -> np.ndarray:
    return np.array([_VECTORS[t] for t in texts], np.float32)


def test_a_concept_is_the_normalised_mean_of_its_normalised_prompts() -> None:
    matrix = prompt_matrix(("one", "two", "none"), {"one": ("a", "b"), "two": ("c",)}, _encode)
    np.testing.assert_allclose(matrix[0], np.array([1, 1, 0]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(matrix[1], [0, 0, 1])
    assert np.isnan(matrix[2]).all()
    assert np.isnan(prompt_matrix(("none",), {}, _encode)).all()


def test_a_score_depends_on_its_own_ecg_alone_and_not_on_its_length() -> None:
    rng = np.random.default_rng(0)
    ecg, concepts = rng.normal(size=(9, 4)).astype(np.float32), normalise(rng.normal(size=(3, 4)).astype(np.float32))
    whole = zero_shot_scores(ecg, concepts)
    np.testing.assert_allclose(zero_shot_scores(5 * ecg[4:5], concepts)[0], whole[4], atol=1e-6)
    assert np.abs(whole).max() <= 1 + 1e-6
    assert (zero_shot_scores(np.zeros((1, 4), np.float32), concepts) == 0).all()


def _slow_ranks(ecg: np.ndarray, texts: np.ndarray, own: np.ndarray) -> tuple[list[float], list[float]]:
    similarity = normalise(ecg) @ normalise(texts).T
    forward = [1.0 + sum(similarity[i, t] > similarity[i, own[i]] for t in range(len(texts))) for i in range(len(ecg))]
    backward = []
    for i in range(len(ecg)):
        column = similarity[:, own[i]]
        backward.append(1.0 + sum(column[j] > column[own == own[i]].max() for j in range(len(ecg))))
    return forward, backward


def test_ranks_equal_counting_and_identical_reports_are_hits() -> None:
    rng = np.random.default_rng(1)
    texts = rng.normal(size=(12, 6)).astype(np.float32)
    own = np.append(rng.permutation(12), rng.integers(0, 12, 18))
    ecg = (texts[own] + 1.5 * rng.normal(size=(30, 6))).astype(np.float32)
    forward, backward = _slow_ranks(ecg, texts, own)
    np.testing.assert_array_equal(ecg_to_text(ecg, texts, own).rank, forward)
    np.testing.assert_array_equal(text_to_ecg(ecg, texts, own).rank, backward)


def test_the_same_answer_to_everything_finds_nothing() -> None:
    same, own = np.ones((40, 3), np.float32), np.arange(40)
    for found in (ecg_to_text(same, same, own), text_to_ecg(same, same, own)):
        assert found.recall(1).mean() == 0.0
        assert np.median(found.rank) == pytest.approx(found.chance_median_rank(), abs=1)


def test_nan_embeddings_have_no_rank() -> None:
    bad, own = np.full((5, 3), np.nan, np.float32), np.arange(5)
    assert np.isnan(ecg_to_text(bad, np.ones((5, 3), np.float32), own).rank).all()


def test_chance_is_what_random_embeddings_reach() -> None:
    rng = np.random.default_rng(2)
    own = np.append(np.arange(60), rng.integers(0, 10, 60))
    recalls = np.zeros((2, len(RECALL_AT)))
    rounds = 60
    for _ in range(rounds):
        ecg, texts = rng.normal(size=(120, 5)).astype(np.float32), rng.normal(size=(60, 5)).astype(np.float32)
        for d, found in enumerate((ecg_to_text(ecg, texts, own), text_to_ecg(ecg, texts, own))):
            recalls[d] += [found.recall(k).mean() / rounds for k in RECALL_AT]
            chance = [found.chance_recall(k) for k in RECALL_AT]
            if d == 0:
                np.testing.assert_allclose(chance, np.array(RECALL_AT) / 60)
    np.testing.assert_allclose(recalls[0], np.array(RECALL_AT) / 60, atol=0.02)
    np.testing.assert_allclose(
        recalls[1], [text_to_ecg(ecg, texts, own).chance_recall(k) for k in RECALL_AT], atol=0.03
    )
