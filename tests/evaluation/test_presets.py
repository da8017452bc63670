"""Published protocols as suites: their constants, their label sets on records in memory, wordings side by side."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.model_selection import train_test_split
from suite_world import SuiteFake, make_split, opener

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.class_labels import class_labels
from ecgclip_jax.evaluation.compare import compare
from ecgclip_jax.evaluation.protocols.few_labels import record_draws
from ecgclip_jax.evaluation.results import load_results
from ecgclip_jax.evaluation.suites import opening, set_scores
from ecgclip_jax.evaluation.suites.changed_input import change_ecg, changed
from ecgclip_jax.evaluation.suites.context import SuiteModels
from ecgclip_jax.evaluation.suites.fitting import Fitted
from ecgclip_jax.evaluation.suites.named import suite
from ecgclip_jax.evaluation.suites.presets import PRESETS, ptb_xl_sets
from ecgclip_jax.evaluation.suites.runner import SuiteOutcome, run_suite
from ecgclip_jax.evaluation.suites.summary import suite_summary
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.signal import MISSING_UV, STORED_LEADS
from ecgclip_jax.spec.suites import InputChange, SuiteSpec
from ecgclip_jax.text.label_sets import label_set
from ecgclip_jax.text.prompts import load_prompts, make_prompt_set
from tfds_builders.registry import BUILDERS, DECLARED

CODES = ("AFIB", "SBRAD", "STACH")
"""What samples 0, 1 and 2 of lead I hold: classes of PTB-XL's rhythm set; SR stands for none of them."""


@cache
def ptb_xl(split: str, seed: int) -> CohortSplit:
    """200 records with SCP codes."""
    signal = np.random.default_rng(seed).random((200, 5)) < 0.3
    made = make_split(split, seed, signal=signal)
    codes = [[c for c, there in zip(CODES, row, strict=False) if there] or ["SR"] for row in signal]
    columns = {
        "label_vocabulary": pa.array(["scp"] * 200),
        "label_codes": pa.array(codes),
        "label_values": pa.array([[100.0] * len(own) for own in codes], pa.list_(pa.float32())),
    }
    table = made.table
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return replace(made, cohort="ptb_xl", table=table)


@dataclass(frozen=True)
class TextFake(SuiteFake):
    """Also reads texts: by a word of theirs it knows the three classes; any other text is nothing."""

    @property
    def experiment(self) -> Experiment:
        own = super().experiment
        return Experiment(name="fake", summary="a fake", data=own.data, signal=own.signal)

    def encode_text(self, texts: list[str]) -> np.ndarray:
        words = ("fibrillation", "bradycardia", "sinus tachycardia")
        found = np.array([[word in text.lower() for word in words] + [0, 0] for text in texts], np.float32)
        return found + np.float32(1e-3)


def small(name: str, **changes: Any) -> SuiteSpec:
    """A preset cut down to one cohort and seconds."""
    spec = suite(name)
    sets = tuple(s for s in spec.cohorts if s.name in ("ptb_xl_rhythm", "csn"))
    cheap = {"epochs": 15, "batch": 100, "milestone": 0, "learning_rate": 0.1} if spec.probe.kind == "gradient" else {}
    cut = {
        "cohorts": sets, "fractions": (1.0,), "draws": 1, "seeds": 2, "untrained_seeds": 1, "macro_min_labels": 2,
        "bootstrap_replicates": 20, "probe": spec.probe.replace(cheap), "min_test_positives": 10, "map_records": 0,
    }  # fmt: skip
    return spec.replace(cut | changes)


def no_boosting(opened: opening.OpenSet, columns: Any) -> Any:
    """In place of the baseline that takes longest; it is tested with our own suites."""
    return lambda draw: Fitted({test.name: np.zeros(test.labels.positive.shape) for test in opened.tests})


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, spec: SuiteSpec, **options: Any) -> SuiteOutcome:
    world = {name: ptb_xl(name, seed) for seed, name in enumerate(("train", "validation", "test"))}
    monkeypatch.setattr(opening, "open_cohort", opener(world))
    monkeypatch.setattr(set_scores, "fit_boosting", no_boosting)
    models = SuiteModels(TextFake(), lambda seed: TextFake(0.0, seed + 1))
    return run_suite(spec, models, "nowhere", folder, show_progress=False, **options)


def test_merl6_asks_every_class_in_every_wording_and_tells_the_spread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = make_prompt_set("en", {"AFIB": ("fibrillation",), "SBRAD": ("not this",)}, "mine")
    outcome = run(monkeypatch, tmp_path, small("merl6"), prompts=[own])
    results = outcome.results
    zero = {"protocol": "zero_shot", "model": "pre-trained", "metric": "auroc"}
    rows = {r.prompt_set: r for r in results.find(**zero, label="AFIB")}
    assert list(rows) == ["sentences", "class_names", "attributes", "mine"]
    assert rows["class_names"].value > 0.85
    assert len({r.prompts_fingerprint for r in rows.values()}) == 4
    assert rows["mine"].prompts_fingerprint == own.sha
    values = [r.value for r in rows.values()]
    assert rows["sentences"].prompt_spread == pytest.approx(max(values) - min(values))
    assert all(math.isnan(r.prompt_spread) for name, r in rows.items() if name != "sentences")
    macro = {r.prompt_set: r for r in results.find(**zero, label="macro")}
    assert json.loads(macro["mine"].excluded_labels)["STACH"] == "no_prompt"
    same = [macro[name].value for name in ("sentences", "class_names", "attributes")]
    assert macro["sentences"].prompt_spread == pytest.approx(max(same) - min(same)), (
        "another list of labels is no rival"
    )
    difference = results.find(**zero, label="AFIB", compared_with="untrained seed 0", prompt_set="class_names")
    assert difference[0].ci_low > 0
    assert load_results(tmp_path / "evaluation" / "merl6").find(**zero, label="AFIB") == list(rows.values())
    (probe,) = results.find(protocol="linear_probe", label="AFIB", metric="auroc", model="pre-trained")
    assert probe.value > 0.85
    assert (probe.n_repeats, probe.prompt_set) == (2, "")
    assert "chosen on validation" in probe.note
    assert any("csn: no data" in w and "needs labels in the vocabulary snomed" in w for w in results.warnings)
    assert not results.find(protocol="linear_probe_best_test_epoch")
    suite_summary(small("merl6"), outcome)
    folder = tmp_path / "evaluation" / "merl6"
    pairs = compare(folder, folder, ("pre-trained", "untrained seed 0"), replicates=20, permutations=20).rows
    asked = [r for r in pairs if (r.protocol, r.label, r.metric) == ("zero_shot", "macro", "auroc")]
    assert len(asked) == 1, "the headline prompts alone are compared"


def test_as_released_the_maximum_over_test_epochs_stands_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = small("merl6_as_released")
    sets = tuple(s.replace({"learnt_label_set": "ptb_xl/rhythm"}) for s in spec.cohorts if s.name != "csn")
    spec = spec.replace({"cohorts": sets, "fractions": (0.1, 1.0), "protocols": ("linear_probe",), "seeds": 1})
    results = run(monkeypatch, tmp_path, spec).results
    asked = {"label": "macro", "metric": "auroc", "model": "pre-trained", "label_fraction": 1.0, "subgroup": ""}
    (chosen,), (best,) = (
        results.find(protocol=name, **asked) for name in ("linear_probe", "linear_probe_best_test_epoch")
    )
    assert best.value >= chosen.value
    (row,) = results.find(**asked | {"label": "AFIB"}, protocol="linear_probe_best_test_epoch")
    assert "AS RELEASED" in row.note
    (few,) = results.find(**asked | {"label_fraction": 0.1}, protocol="linear_probe")
    assert few.n_repeats == 1
    again = run(monkeypatch, tmp_path, spec).results
    assert again.rows == results.rows, "kept trajectories give the same rows"


def test_a_prompt_set_named_as_a_shipped_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="rename the file"):
        run(monkeypatch, tmp_path, small("merl6"), prompts=[make_prompt_set("en", {"AFIB": ("x",)}, "sentences")])


def test_columns_read_by_position_are_learnt_from_other_classes() -> None:
    (cohorts,) = ptb_xl_sets("sub", learnt_label_set="ptb_xl/sub_merl_train")
    split = ptb_xl("train", 0)
    codes = pa.array([["1AVB"], ["ISC_"], ["RAO/RAE"], *[["NORM"]] * 197])
    table = split.table.set_column(split.table.column_names.index("label_codes"), "label_codes", codes)
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_cohort", lambda _, source: replace(split, table=table, split=source.split))
        asked = opening._asked("nowhere", cohorts, ())
    learnt, scored = asked.learning(replace(split, table=table)), asked.testing(replace(split, table=table))
    found = [[own.tasks[i] for i in np.flatnonzero(row)] for own in (learnt, scored) for row in own.positive[:3]]
    assert found == [["ISC"], ["RAO/RAE"], ["AVB"], ["AVB"], ["ISC"], ["RAO/RAE"]]


def test_classes_of_a_label_set_count_every_record_that_the_set_keeps() -> None:
    split = ptb_xl("test", 2)
    labels = class_labels(split, label_set("ptb_xl/rhythm"))
    assert labels.tasks == tuple(c.name for c in label_set("ptb_xl/rhythm").classes)
    codes = split.table.column("label_codes").to_pylist()
    assert [labels.tasks[i] for i in np.flatnonzero(labels.positive[0])] == sorted(codes[0], key=labels.tasks.index)
    assert labels.scored.all()
    assert {g.label_source for g in labels.groups.values()} == {"report"}
    assert not class_labels(split, label_set("ptb_xl/super")).known.any(), "no record has a diagnostic statement"


def test_inputs_are_changed_as_they_say() -> None:
    ecg = np.random.default_rng(0).integers(-500, 500, (2, 5000, 12)).astype(np.int16)
    ecg[0, 3000, 4] = MISSING_UV
    cut = change_ecg(ecg, InputChange(kept_s=5.0))
    assert np.array_equal(cut[:, :2500], ecg[:, :2500])
    assert set(np.unique(cut[:, 2500:])) == {0, MISSING_UV}
    one = change_ecg(ecg, InputChange(leads=("II",)))
    assert [lead for i, lead in enumerate(STORED_LEADS) if (one[..., i] != MISSING_UV).any()] == ["II"]
    slow = change_ecg(ecg, InputChange(stretched_s=2.0))
    assert np.array_equal(slow[:, ::5], ecg[:, :1000])
    np.testing.assert_allclose(slow[1, 1:5, 0], np.interp([0.2, 0.4, 0.6, 0.8], [0, 1], ecg[1, :2, 0]), atol=0.51)
    split = ptb_xl("test", 2)
    assert changed(split, InputChange()) is split
    other = changed(split, InputChange(leads=("I",), stretched_s=2.0))
    assert other.version == "1.0.0+leads_I+first_2_s_stretched"
    assert other.fingerprint != split.fingerprint
    assert (other.read_ecg([3])[..., 1:] == MISSING_UV).all()


def test_records_are_drawn_as_scikit_learn_draws_them() -> None:
    few, one = record_draws(170, [0.1])[0], record_draws(30, [0.01])[0]
    expected, _ = train_test_split(np.arange(170), train_size=0.1, random_state=42)
    assert sorted(expected) == few.rows.tolist()
    assert len(one.rows) == 1


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_name_what_they_lack_and_read_sets_that_there_are(name: str) -> None:
    spec = suite(name)
    assert len({s.name for s in spec.cohorts}) == len(spec.cohorts)
    for cohorts in spec.cohorts:
        assert cohorts.train[0].cohort in BUILDERS
        assert all(label_set(own).classes for own in cohorts.label_sets)
    for lacking in spec.without_data:
        assert lacking.why
        assert lacking.cohort in {*DECLARED, *BUILDERS, "private", "unknown"}
    assert spec.min_test_positives == (1 if name.endswith("_as_released") else 20)
    assert spec.few_labels == ("records" if name in ("merl6_as_released", "ecgfix_as_released") else "patients")
    assert load_prompts(spec.prompt_language, spec.prompt_sets[0]).name == "sentences"


def test_presets_count_as_the_papers_do() -> None:
    merl, clef, bench = suite("merl6"), suite("clef18"), suite("benchecg")
    assert len(merl.cohorts) == 6
    evaluated = len(clef.cohorts) + 1
    assert evaluated + len(clef.without_data) == 18, "LVEF of MIMIC-IV is two tasks: below a threshold, and as a number"
    tasks = {(n.task, n.cohort) for n in bench.without_data}
    assert len(bench.cohorts) + len({task for task, _ in tasks}) == 10, "age counts once, over three cohorts"
    assert len(suite("ecgfix").tasks) == 12
