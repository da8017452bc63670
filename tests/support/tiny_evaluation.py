"""One tiny run for all tests that need a trained model: a labelled cohort, an experiment file, `ecgclip train`."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from support.tiny_cohort import tiny_record, write_cohort
from support.tiny_training import on_one_device, tiny_run

from ecgclip_jax.cli.main import main
from ecgclip_jax.spec.experiment import EvaluationSpec, Source
from tfds_builders.common.schema import Record

LABELS = ("atrial_fibrillation", "sinus_bradycardia", "left_bundle_branch_block", "paced_rhythm")
SPLITS = {"train": range(48), "validation": range(48, 64), "test": range(64, 80)}
STEPS = 4


@dataclass(frozen=True)
class TinyRun:
    """Where the parts of the run lie."""

    data_dir: Path
    experiment_file: Path
    folder: Path


def labelled_record(number: int) -> Record:
    """Each record has one or two of four labels, and a report that names them."""
    codes = tuple(dict.fromkeys((LABELS[number % 4], LABELS[number // 4 % 4])))
    report = " and ".join(code.replace("_", " ") for code in codes)
    return tiny_record(number, report=report, label_codes=codes, label_values=(100.0,) * len(codes))


def write_experiment(path: Path) -> Path:
    """An experiment file with one tiny variant, evaluated on cohort `tiny`."""
    train, validation, test = ((Source(cohort="tiny", split=split),) for split in SPLITS)
    evaluation = EvaluationSpec(train=train, validation=validation, test=test, bootstrap_replicates=20)
    experiment = tiny_run(steps=STEPS, checkpoint_every=2).model_copy(update={"evaluation": evaluation})
    path.write_text(
        "from ecgclip_jax.spec.experiment import Experiment\n\n"
        f"TEXT = r'''{experiment.model_dump_json()}'''\n\n\n"
        "def variants():\n    return {'tiny': Experiment.model_validate_json(TEXT)}\n"
    )
    return path


@cache
def trained_run() -> TinyRun:
    """The run, trained by the command itself, once for all processes of the tests; each has a folder of its own.

    Tests that change the folder work on a copy.
    """
    shared = Path(os.environ["ECGCLIP_TESTS_SCRATCH"]) / "tiny_run"
    run = TinyRun(shared / "data", shared / "tiny.py", shared / "run")
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "trained").exists():
            _train(run)
            (shared / "trained").touch()
    own = Path(tempfile.mkdtemp(dir=shared)) / "run"
    return replace(run, folder=Path(shutil.copytree(run.folder, own)))


def _train(run: TinyRun) -> None:
    write_experiment(run.experiment_file)
    write_cohort(run.data_dir, {split: [labelled_record(n) for n in numbers] for split, numbers in SPLITS.items()})
    words = ["train", str(run.experiment_file), "--workdir", str(run.folder), "--data-dir", str(run.data_dir)]
    with on_one_device():
        assert main(words) == 0
