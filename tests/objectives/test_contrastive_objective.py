"""The objectives around their losses: heads, views, dropout, learned scalars, masks; with towers made of numpy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.contracts import Batch, EcgInput, EcgOutput, TextOutput, TextRows, TextTokens
from ecgclip_jax.models.heads import Head
from ecgclip_jax.objectives import reference
from ecgclip_jax.objectives.build import build_objective
from ecgclip_jax.objectives.contrastive import dropout, l2_normalised
from ecgclip_jax.spec.encoders import HeadSpec
from ecgclip_jax.spec.objectives import InfoNCESpec, SigmoidSpec

ROWS, WIDTH, DIM = 6, 8, 8
WITH_VIEWS = InfoNCESpec(embedding_dim=DIM, text_head=HeadSpec(kind="linear"), uni_modal_weight=0.5)


class FixedTowers:
    """Towers whose output is given."""

    ecg_width = text_width = feature_width = WIDTH

    def __init__(self, pooled_mean: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.ecg_out, self.mean, self.text_out = (
            jnp.asarray(rng.normal(size=(ROWS, WIDTH)), jnp.float32) for _ in "abc"
        )
        self.has_mean = pooled_mean

    def ecg(self, params: Any, stats: Any, ecg_input: EcgInput, *, train: bool, keys: Any = None) -> Any:
        mean = self.mean if self.has_mean else None
        return EcgOutput(pooled=self.ecg_out, features=self.mean, pooled_mean=mean), {"seen": stats["seen"] + 1}

    def text(self, params: Any, ids: Any, mask: Any, *, train: bool, keys: Any = None) -> TextOutput:
        return TextOutput(pooled=self.text_out)


def make_batch(**changes: Any) -> Batch:
    fields: dict[str, Any] = {
        "ecg_uv": np.zeros((ROWS, 10, 12), np.int16),
        "record_row": jnp.arange(ROWS),
        "patient_group": jnp.asarray([0, 0, 1, 2, 3, 4]),
        "text_group": jnp.asarray([0, 1, 2, 2, 3, 4])[:, None],
        "texts": TextTokens(ids=jnp.zeros((ROWS, 1, 4), jnp.int32), mask=jnp.ones((ROWS, 1, 4), bool)),
        "text_valid": jnp.ones((ROWS, 1), bool),
    }
    return Batch(**(fields | changes))


ECG = EcgInput(jnp.zeros((ROWS, 10, 12)), jnp.ones((ROWS, 12), bool), jnp.ones((ROWS, 10), bool))


def run(spec: Any, *, train: bool = False, keys: Any = None, towers: FixedTowers | None = None, **batch: Any) -> Any:
    """(loss, metrics, embeddings, parameters, running statistics)."""
    towers = towers or FixedTowers()
    objective = build_objective(spec)
    heads = {name: Head(**need._asdict()) for name, need in objective.heads(towers).items()}
    params = {"ecg": {}, "text": {}, "objective": objective.init(jax.random.key(1), heads)}
    made = make_batch(**batch)
    stats = {"ecg": {"seen": 0}}
    embeddings, stats = objective.embed(towers, heads, params, stats, (ECG,), made, train=train, keys=keys)
    loss, metrics = objective.loss(embeddings, params["objective"], made, ())
    return loss, metrics, embeddings, params["objective"], stats


def test_embeddings_are_the_projected_outputs_at_length_one() -> None:
    _, _, embeddings, params, stats = run(InfoNCESpec(embedding_dim=DIM, text_head=HeadSpec(kind="linear")))
    towers = FixedTowers()
    projected = towers.text_out @ params["text_head"]["linear"]["kernel"] + params["text_head"]["linear"]["bias"]
    for found, expected in ((embeddings["ecg"], towers.ecg_out), (embeddings["text"][:, 0], projected)):
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)
    assert params["ecg_head"] == {}
    assert "log_scale" not in params
    assert stats == {"ecg": {"seen": 1}}


def test_merls_loss_is_the_sum_of_both_alignments() -> None:
    loss, metrics, embeddings, params, _ = run(WITH_VIEWS)
    mean, scale = FixedTowers().mean, jnp.asarray(1 / 0.07)
    views = [l2_normalised(mean @ params[name]["linear"]["kernel"]) for name in ("view_1", "view_2")]
    none, valid = jnp.zeros((ROWS, 0), jnp.int32), jnp.ones(ROWS, bool)
    cross, _ = reference.infonce(embeddings["ecg"], embeddings["text"][:, 0], scale, none, valid, direction="sum")
    uni, _ = reference.infonce(views[0], views[1], scale, none, valid, direction="sum")
    assert float(loss) == pytest.approx(float(cross + 0.5 * uni), rel=1e-5)
    assert float(metrics["loss_uni_modal"]) == pytest.approx(float(uni), rel=1e-5)
    assert set(params["view_1"]["linear"]) == {"kernel"}


def test_views_have_dropout_of_their_own_that_belongs_to_the_row() -> None:
    keys = jax.random.split(jax.random.key(5), ROWS)
    first, second = (run(WITH_VIEWS, train=True, keys=k)[2] for k in (keys, keys))
    np.testing.assert_array_equal(first["view_1"], second["view_1"])
    swapped = run(WITH_VIEWS, train=True, keys=keys[::-1])[2]
    zeros = {name: np.asarray(first[name] == 0) for name in ("view_1", "view_2")}
    assert (zeros["view_1"] != zeros["view_2"]).any()
    np.testing.assert_array_equal(zeros["view_1"], np.asarray(swapped["view_1"] == 0)[::-1])
    assert not (run(WITH_VIEWS)[2]["view_1"] == 0).any()
    with pytest.raises(ValueError, match="a random key per record"):
        run(WITH_VIEWS, train=True)


def test_dropout_keeps_the_mean() -> None:
    keys = jax.random.split(jax.random.key(0), 400)
    kept = dropout(jnp.ones((400, 50)), 0.1, keys)
    assert set(np.unique(kept).round(5)) == {0.0, np.float32(1 / 0.9).round(5)}
    assert float((kept == 0).mean()) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
@pytest.mark.parametrize(("patients", "texts"), [(True, False), (False, True), (True, True)])
def test_masks_reach_the_loss(kind: str, patients: bool, texts: bool) -> None:
    masks = {"mask_same_patient": patients, "mask_same_text": texts, "embedding_dim": DIM}
    spec = InfoNCESpec(**masks) if kind == "infonce" else SigmoidSpec(**masks)
    loss, _, embeddings, _, _ = run(spec)
    batch = make_batch()
    groups = jnp.stack([batch.patient_group] * patients + [batch.text_group[:, 0]] * texts, axis=1)
    arguments = (embeddings["ecg"], embeddings["text"][:, 0])
    valid = jnp.ones(ROWS, bool)
    if kind == "infonce":
        expected, _ = reference.infonce(*arguments, jnp.asarray(1 / 0.07), groups, valid, direction="sum")
    else:
        expected, _ = reference.sigmoid(*arguments, jnp.asarray(10.0), jnp.asarray(-10.0), groups, valid)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_soft_targets_are_the_similarity_of_the_texts() -> None:
    soft = {"soft_target_weight": 0.4, "soft_target_scale": 3.0}
    loss, _, embeddings, _, _ = run(InfoNCESpec(embedding_dim=DIM, **soft))
    ecg, text = embeddings["ecg"], embeddings["text"][:, 0]
    none, valid = jnp.zeros((ROWS, 0), jnp.int32), jnp.ones(ROWS, bool)
    arguments = (ecg, text, jnp.asarray(1 / 0.07), none, valid)
    expected, _ = reference.infonce(*arguments, direction="sum", factors=text, **soft)
    hard, _ = reference.infonce(*arguments, direction="sum")
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert abs(float(loss - hard)) > 0.1


def test_an_ecg_without_report_counts_only_in_the_uni_modal_part() -> None:
    absent = jnp.ones((ROWS, 1), bool).at[2].set(False)
    everything, partial = run(WITH_VIEWS)[1], run(WITH_VIEWS, text_valid=absent)[1]
    assert float(partial["loss_uni_modal"]) == float(everything["loss_uni_modal"])
    assert float(partial["loss_cross_modal"]) != float(everything["loss_cross_modal"])


def test_only_learned_scalars_are_parameters_and_they_are_bounded() -> None:
    learned = InfoNCESpec(embedding_dim=DIM, learn_temperature=True, max_scale=20)
    objective = build_objective(learned)
    assert float(objective.initial_scalars()["log_scale"]) == pytest.approx(math.log(1 / 0.07))
    bounded = objective.constrain({"log_scale": jnp.asarray(9.0), "text_head": {}})
    assert float(bounded["log_scale"]) == pytest.approx(math.log(20))
    assert float(objective.constrain({"log_scale": jnp.asarray(1.0)})["log_scale"]) == 1.0
    sigmoid = SigmoidSpec(embedding_dim=DIM)
    assert {k: round(float(v), 4) for k, v in build_objective(sigmoid).initial_scalars().items()} == {
        "log_scale": round(math.log(10), 4),
        "logit_bias": -10.0,
    }
    fixed = sigmoid.model_copy(update={"learn_scale": False, "learn_bias": False})
    assert build_objective(fixed).initial_scalars() == {}
    assert float(run(fixed)[1]["bias"]) == -10.0


def test_texts_of_a_table_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of a text table"):
        run(InfoNCESpec(embedding_dim=DIM), texts=TextRows(index=jnp.zeros((ROWS, 1), jnp.int32)))


def test_each_of_several_texts_is_a_pair_and_the_others_of_its_ecg_are_no_negatives() -> None:
    rng = np.random.default_rng(2)
    ecg, text = (
        l2_normalised(jnp.asarray(rng.normal(size=shape), jnp.float32)) for shape in ((ROWS, DIM), (ROWS, 2, DIM))
    )
    valid = jnp.ones((ROWS, 2), bool).at[3, 1].set(False)
    groups = jnp.asarray(rng.integers(0, 4, (ROWS, 2)), jnp.int32)
    objective = build_objective(InfoNCESpec(embedding_dim=DIM, temperature=0.1, mask_same_text=True))
    loss, _ = objective.loss({"ecg": ecg, "text": text}, {}, make_batch(text_valid=valid, text_group=groups), ())
    total, pairs = 0.0, [(i, k) for i in range(ROWS) for k in range(2) if valid[i, k]]
    for i, k in pairs:
        rivals = [(j, m) for j, m in pairs if j != i and groups[i, k] != groups[j, m]]
        positive = math.exp(float(ecg[i] @ text[i, k]) / 0.1)
        row = sum(math.exp(float(ecg[i] @ text[j, m]) / 0.1) for j, m in rivals)
        column = sum(math.exp(float(ecg[j] @ text[i, k]) / 0.1) for j, _ in rivals)
        total += math.log(1 + row / positive) + math.log(1 + column / positive)
    assert float(loss) == pytest.approx(total / len(pairs), rel=1e-5)


def test_views_need_a_mean_over_time() -> None:
    with pytest.raises(ValueError, match="uni_modal_weight needs an ECG encoder"):
        run(WITH_VIEWS, towers=FixedTowers(pooled_mean=False))


def test_a_row_of_zeros_has_a_finite_gradient() -> None:
    x = jnp.zeros((2, 3)).at[0, 0].set(2.0)
    normalised, pull_back = jax.vjp(l2_normalised, x)
    np.testing.assert_allclose(normalised, [[1, 0, 0], [0, 0, 0]])
    assert np.isfinite(pull_back(jnp.ones((2, 3)))[0]).all()


def test_an_objective_is_a_frozen_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build_objective(WITH_VIEWS).spec = InfoNCESpec()  # type: ignore[misc]
