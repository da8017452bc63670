"""Every shipped experiment validates, keeps its golden text, and rejects wrong keys and values clearly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ecgclip_jax.spec import signal
from ecgclip_jax.spec.experiment import DataSpec, Experiment, Source
from ecgclip_jax.spec.files import ExperimentError, load_experiment, load_variants

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(p for p in (ROOT / "experiments").glob("*.py") if p.name != "__init__.py")
CASES = [(f, v) for f in FILES for v in load_variants(f)]


@pytest.mark.parametrize(("file", "variant"), CASES, ids=lambda c: c.stem if isinstance(c, Path) else c)
def test_resolved_experiment_equals_its_golden_file(file: Path, variant: str) -> None:
    resolved = load_experiment(file, variant)
    text = json.dumps(resolved.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    golden = GOLDEN / f"{file.stem}.{variant}.json"
    if os.environ.get("ECGCLIP_UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, "resolved experiment changed; ECGCLIP_UPDATE_GOLDEN=1 refreshes after a look"
    assert Experiment.model_validate_json(resolved.canonical_json()) == resolved


def test_no_golden_file_without_its_experiment() -> None:
    assert {p.name for p in GOLDEN.glob("*.json")} == {f"{f.stem}.{v}.json" for f, v in CASES}


def minimal() -> Experiment:
    return Experiment(
        name="t", summary="s", data=DataSpec(sources=(Source(cohort="synthetic_ecg"),)), signal=signal.ecgclip()
    )


def test_fingerprint_changes_with_any_value_and_only_then() -> None:
    assert minimal().fingerprint() == minimal().fingerprint()
    assert minimal().replace({"signal.bandpass.low_hz": 0.6}).fingerprint() != minimal().fingerprint()


def test_overrides_change_values() -> None:
    found = load_experiment(FILES[0], None, ["--optimizer.peak-lr", "3e-4", "--data.sources.0.split", "validation"])
    assert found.optimizer.peak_lr == 3e-4
    assert found.data.sources[0].split == "validation"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--optimizer.peak-lr", "-1"], "greater than 0"),
        (["--run.stepz", "3"], "stepz"),
        (["--ecg-encoder.norm-groups", "7"], "norm_groups 7 must divide"),
        (["--ecg-encoder.depth", "19"], "depth"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(words: list[str], expected: str) -> None:
    with pytest.raises(ExperimentError, match=expected):
        load_experiment(ROOT / "experiments" / "demo.py", None, words)


def test_unknown_variant_and_file_name_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="it has: r34, r18, r50, demo, smoke"):
        load_experiment(ROOT / "experiments" / "ecgclip.py", "r99")
    with pytest.raises(ExperimentError, match="no experiment file"):
        load_experiment(tmp_path / "absent.py")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("x = 1\n")
    with pytest.raises(ExperimentError, match="defines no variants"):
        load_experiment(wrong)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"leads": ("I", "I")}, "each lead once"),
        ({"leads": ("I", "V7")}, "V7|Input should be"),
        ({"bandpass": {"low_hz": 50, "high_hz": 40}}, "must be below"),
        ({"bandpass": {"high_hz": 300}}, "Nyquist"),
        ({"filter_order": ("notch",)}, "leaves out"),
        ({"lead_scale": ((0.0, 1.0),) * 8}, "belongs to normalisation 'zscore_dataset'"),
        ({"normalisation": "zscore_dataset", "lead_scale": ((0.0, 1.0),) * 7}, "each of 8 leads"),
        ({"normalisation": "zscore_dataset", "lead_scale": ((0.0, 0.0),) * 8}, "standard deviation above 0"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_signal_spec_is_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        signal.ecgclip(**changes)


def test_replace_refuses_unknown_keys() -> None:
    with pytest.raises(KeyError, match=r"run\.stepz"):
        minimal().replace({"run.stepz": 3})


@pytest.mark.parametrize(
    ("variant", "changes", "expected"),
    [
        ("simclr_demo", {"data.null_world": "shuffled_reports"}, "reads no reports: with shuffled ones"),
        ("simclr_demo", {"data.texts_per_ecg": 2}, "reads no reports: leave data.texts_per_ecg"),
        ("simclr_demo", {"memory.text_remat": "layers"}, "needs a text_encoder"),
        ("simclr_demo", {"data.batch_global": 65, "ecg_encoder.norm_groups": 2}, "must divide data.batch_global 65"),
        ("simclr_demo", {"memory.micro_batches": 4}, "a multiple of 4"),
        ("simclr_demo", {"mesh.data": 3}, "must divide by the mesh's 3 x 1 devices"),
        ("simclr", {"signal.normalisation": "minmax_record"}, "the other leads would decide"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(variant: str, changes: dict[str, object], expected: str) -> None:
    fitting = load_experiment(ROOT / "experiments" / "ecg_only.py", variant)
    with pytest.raises(ValueError, match=expected):
        fitting.replace(changes)
