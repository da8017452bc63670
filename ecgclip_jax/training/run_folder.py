"""The folder of a run: what it is a run of, its data index, its tokenizer. Filled at the first start, checked later."""

from __future__ import annotations

import json
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from transformers import PreTrainedTokenizerBase

from ecgclip_jax.data.exposure import EXPOSURE_FILE, write_exposure
from ecgclip_jax.data.index import SUMMARY_FILE, RunIndex, build_index, load_index
from ecgclip_jax.data.sources import strictest_access
from ecgclip_jax.data.targets import target_facts
from ecgclip_jax.parallel.agreement import by_first_process, exchange, require_same, together
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.whole_file import whole_file
from ecgclip_jax.text.tokenizer import fingerprint, load_tokenizer, make_tokenizer, save

EXPERIMENT_FILE = "experiment.json"
TOKENIZER_FOLDER = "tokenizer"
_VERSIONS_OF = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy", "ecgclip_jax")
_FREE_AT_RESUME: dict[str, Any] = {
    "summary": True,
    "mesh": True,
    "memory": True,
    "evaluation": True,
    "data": {"workers", "prefetch_batches", "input"},
    "run": {"log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every", "compiler"},
}
"""Parts of an experiment that cannot change the weights it leads to, so that a resumed run may change them."""
_FREE_PER_PROCESS: dict[str, Any] = {"summary": True, "evaluation": True, "data": {"workers", "prefetch_batches"}}
"""Parts of an experiment that may differ between the processes of a job: the others decide what they do together."""
_SHARED_FILE = "last-start"
_SHARED_WAIT_S = 30.0
"""How long a network file system may take to show a file that another host has written."""


class RunFolderError(UserError):
    """A run folder that cannot be used for this experiment; the message says what differs and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """An opened run folder: the records and the tokenizer of the run, and the facts saved with every checkpoint."""

    path: Path
    index: RunIndex
    tokenizer: PreTrainedTokenizerBase | None
    """None for an objective that reads no text."""
    facts: dict[str, Any]


def open_run_folder(experiment: Experiment, path: Path, data_dir: Path, *, resume: bool) -> RunFolder:
    """Opens the folder of a run, new or begun before; process 0 writes, the others wait for it.

    Raises:
        RunFolderError: the folder belongs to another experiment, is no run folder, exists though `resume` is off,
            cannot be written, or is not the same for all processes.
        CohortError, RunIndexError, TokenizerError: the data or the tokenizer are not what they have to be.
        DisagreementError: processes that see other data or another tokenizer.
    """

    def fill() -> None:
        _claim(experiment, path, resume=resume)
        _fill(experiment, path, data_dir)

    by_first_process(fill)
    _require_shared(path)
    index = together(lambda: load_index(path, experiment.data, data_dir, experiment.seed))
    tokenizer = together(lambda: _load_tokenizer(experiment, path))
    facts = run_facts(experiment) | {
        "index_fingerprint": index.fingerprint,
        "tokenizer_fingerprint": None if tokenizer is None else fingerprint(tokenizer),
        "vocab_size": 0 if tokenizer is None else len(tokenizer),
        "access": index.access,
        "licences": sorted({cohort.licence for cohort in index.cohorts}),
    }
    facts |= _inherited(experiment, facts)
    require_same({name: facts[name] for name in ("index_fingerprint", "tokenizer_fingerprint")})
    by_first_process(lambda: _write_json(path / EXPERIMENT_FILE, facts))
    return RunFolder(path, index, tokenizer, facts)


def _inherited(experiment: Experiment, facts: dict[str, Any]) -> dict[str, Any]:
    """Access class and licences together with those of the run that this one starts from."""
    if experiment.start is None:
        return {}
    path = Path(experiment.start.run) / EXPERIMENT_FILE
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        licences = sorted({*facts["licences"], *there["licences"]})
        return {"access": strictest_access([facts["access"], there["access"]]), "licences": licences}
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"start.run {experiment.start.run} is no run that has begun ({path}: {error})") from error


def shared_facts(experiment: Experiment) -> dict[str, Any]:
    """What the processes of a job must have in common before the first step, each under a name that a user knows."""
    values = experiment.model_dump(mode="json", exclude=_FREE_PER_PROCESS)
    return {
        **dict(_leaves(values)),
        **{f"version of {name}": version(name) for name in _VERSIONS_OF},
        "git commit": git_commit(),
        "kind of device": jax.local_devices()[0].device_kind,
    }


def run_facts(experiment: Experiment) -> dict[str, Any]:
    """The resolved experiment, its fingerprint, and what it runs on."""
    return {
        "experiment": experiment.model_dump(mode="json"),
        "fingerprint": experiment.fingerprint(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _VERSIONS_OF},
        "git_commit": git_commit(),
        "platform": jax.devices()[0].platform,
        "device_kind": jax.devices()[0].device_kind,
        "n_devices": jax.device_count(),
    }


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, with `-dirty` if files differ from it; None outside of one."""
    if shutil.which("git") is None:
        return None
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None


def differences(saved: dict[str, Any], experiment: Experiment) -> list[str]:
    """Dotted names with both values where an experiment would lead to other weights than the saved one."""
    before, now = (dict(_leaves(_decisive(e))) for e in (Experiment.model_validate(saved), experiment))
    names = [name for name in before | now if before.get(name) != now.get(name)]
    return [f"{name} is {before.get(name)!r} there and {now.get(name)!r} here" for name in names]


def _decisive(experiment: Experiment) -> dict[str, Any]:
    """What the weights depend on; micro-batches too where they decide which place of a batch a record has."""
    decisive = experiment.model_dump(mode="json", exclude=_FREE_AT_RESUME)
    if experiment.data.shuffle_shards > 1:
        decisive["memory"] = {"micro_batches": experiment.memory.micro_batches}
    return decisive


def _claim(experiment: Experiment, path: Path, *, resume: bool) -> None:
    """Makes the folder this experiment's, or checks that it is."""
    known = path / EXPERIMENT_FILE
    if not known.is_file():
        if path.is_dir() and any(path.iterdir()):
            raise RunFolderError(f"{path} is neither empty nor a run folder; choose another --workdir")
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
        _write_json(known, run_facts(experiment))
        return
    if not resume:
        raise RunFolderError(f"{path} already holds a run; resume it, or choose another --workdir")
    try:
        differing = differences(json.loads(known.read_text(encoding="utf-8"))["experiment"], experiment)
    except (ValueError, KeyError) as error:
        raise RunFolderError(
            f"{known} does not describe an experiment of this version; choose another --workdir"
        ) from error
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise RunFolderError(f"{path} holds a run of another experiment: {shown}. Choose another --workdir")


def _fill(experiment: Experiment, path: Path, data_dir: Path) -> None:
    """Selects the records and makes the tokenizer, if a start before has not."""
    if not (path / SUMMARY_FILE).is_file():
        objective = experiment.objective
        index = build_index(experiment.data, data_dir, experiment.seed, reads_text=objective.reads_text)
        facts = target_facts(objective, index)
        before = None if experiment.start is None else Path(experiment.start.run) / EXPOSURE_FILE
        with _writing(path):
            write_exposure(index, path, before)
            index.save(path, facts)
    if experiment.text_encoder is not None and not (path / TOKENIZER_FOLDER).is_dir():
        texts = load_index(path, experiment.data, data_dir, experiment.seed).texts
        tokenizer = make_tokenizer(experiment.text_encoder.tokenizer, texts)
        unnamed = path / (TOKENIZER_FOLDER + ".tmp")
        with _writing(path):
            shutil.rmtree(unnamed, ignore_errors=True)
            save(tokenizer, unnamed)
            unnamed.rename(path / TOKENIZER_FOLDER)


def _load_tokenizer(experiment: Experiment, path: Path) -> PreTrainedTokenizerBase | None:
    return None if experiment.text_encoder is None else load_tokenizer(path / TOKENIZER_FOLDER)


def _require_shared(path: Path) -> None:
    """Whether all processes see the folder that process 0 sees, and not one of the same name on their own host."""
    if jax.process_count() == 1:
        return
    mark = exchange(secrets.token_hex(8))[0]
    by_first_process(lambda: _write(path / _SHARED_FILE, mark))

    def see() -> None:
        until_s = time.monotonic() + _SHARED_WAIT_S
        while not (path / _SHARED_FILE).is_file() or (path / _SHARED_FILE).read_text(encoding="utf-8") != mark:
            if time.monotonic() > until_s:
                raise RunFolderError(
                    f"{path.absolute()} is not the folder that process 0 writes to; all hosts need the same one: "
                    "put --workdir on a file system that they share"
                )
            time.sleep(0.2)

    together(see)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    """Puts `text` there in one piece; RunFolderError if it cannot."""
    with _writing(path.parent), whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full disk or a missing permission becomes a RunFolderError."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"the run folder {path} cannot be written ({error.strerror or error}); free some space or mend the folder "
            "and start the same command again, or choose another --workdir"
        ) from error


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf; an empty list counts as a leaf."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    children = [(f"{prefix}.{key}" if prefix else str(key), value) for key, value in items]
    if not children:
        yield prefix, tree
    for name, value in children:
        yield from _leaves(value, name)
