"""One tiny run for all tests that need a trained model: a labelled cohort, an experiment file, `ecgclip train`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
from support.tiny_cohort import tiny_record, write_cohort
from support.tiny_training import tiny_run

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
def _scratch() -> Path:
    """A folder that lives as long as the process."""
    root = Path(tempfile.mkdtemp(prefix="ecgclip-tiny-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@contextmanager
def quick_compilation() -> Iterator[None]:
    """Programs that run a few times only are compiled without optimisation, and equal ones once in a process."""
    settings = {
        "jax_compilation_cache_dir": jax.config.values["jax_compilation_cache_dir"] or str(_scratch() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@cache
def trained_run() -> TinyRun:
    """The run, trained once in a process by the command itself; tests that change it work on a copy."""
    root = _scratch()
    run = TinyRun(root / "data", write_experiment(root / "tiny.py"), root / "run")
    write_cohort(run.data_dir, {split: [labelled_record(n) for n in numbers] for split, numbers in SPLITS.items()})
    words = ["train", str(run.experiment_file), "--workdir", str(run.folder), "--data-dir", str(run.data_dir)]
    with quick_compilation():
        assert main(words) == 0
    return run
