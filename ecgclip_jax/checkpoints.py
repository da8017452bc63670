"""Checkpoints of a run: everything needed to resume exactly, and to use the model later. The only file with orbax.

A checkpoint is a folder `checkpoints/<step>` with one tree per name (`params`, `batch_stats`, `opt_state`), so that a
model loads without its optimizer, and JSON: step, experiment, fingerprint, versions. A step appears under its name
only when it is complete. The storage format has no checksum over array data (a flipped bit was seen to load
silently), so every save is followed by a list of its files with their SHA-256, which every load checks.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging
from orbax.checkpoint import v1 as ocp

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.whole_file import whole_file

Tree = Any
Json = dict[str, Any]
CHECKPOINT_FOLDER = "checkpoints"
FILE_LIST = "files.sha256.json"


class CheckpointError(UserError):
    """A checkpoint that cannot be read or written; the message names the step and says what to do."""


class Checkpoints:
    """The checkpoints of one run folder: asynchronous saves, the newest `keep` kept.

    One save is in flight at a time; its failure is raised by the next `save`, by `wait` or by `close`. An older
    checkpoint is deleted only after a newer one is complete.
    """

    def __init__(self, workdir: Path, keep: int) -> None:
        _silence_repeated_errors()
        self._folder = workdir / CHECKPOINT_FOLDER
        self._checkpointer = ocp.training.Checkpointer(
            self._folder.absolute(),
            context=_save_options(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, Future[None]] | None = None
        self._latest = max(saved_steps(self._folder), default=None)

    @property
    def latest(self) -> int | None:
        """The newest complete step, as far as this process has waited for it.

        Not looked up in the folder: while process 0 names a new checkpoint, another process may not see it there yet,
        and all must decide alike whether a step is saved.
        """
        return self._latest

    def save(self, step: int, trees: dict[str, Tree], meta: Json) -> None:
        """Begin to save `trees` and `meta`; the arrays may be donated as soon as this returns.

        Raises:
            CheckpointError: the save before this one has failed, or this one cannot begin.
        """
        self.wait()
        try:
            response = self._checkpointer.save_checkpointables_async(
                step, trees, force=True, custom_metadata=meta | {"step": step}
            )
        except (OSError, ValueError) as error:
            raise self._failed(step, error) from error
        assert response is not None
        self._saving = step, self._thread.submit(_finish, response.result, self._folder / str(step))

    def wait(self) -> None:
        """Wait until the save in flight is complete.

        Raises:
            CheckpointError: it has failed; the checkpoints before it are untouched.
        """
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        try:
            saving.result()
        except (OSError, ValueError) as error:
            raise self._failed(step, error) from error
        self._latest = step

    def restore(
        self, step: int, abstract: dict[str, Tree], together: Callable[[Callable[[], None]], None] | None = None
    ) -> dict[str, Tree]:
        """The trees of `step` as `abstract` (ShapeDtypeStruct with sharding) wants them, on whatever mesh.

        Args:
            step: which checkpoint.
            abstract: shapes, dtypes and shardings by name of the tree.
            together: how the processes of a job do what may fail on one of them only (`parallel.agreement.together`).

        Raises:
            CheckpointError: no such step, unreadable, damaged, or not of these shapes.
        """
        if together is None:
            _check(self._folder, step, abstract)
        else:
            together(lambda: _check(self._folder, step, abstract))
        return _load(self._folder, step, abstract)

    def close(self) -> None:
        """Wait for the save in flight and release threads.

        Raises:
            CheckpointError: as `wait`.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            try:
                self._checkpointer.close()
            except (OSError, ValueError):
                # It repeats the error of a failed save, which `wait` has raised.
                logging.getLogger(__name__).debug("closed after a failed save")

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        last = self.latest
        left = "no earlier checkpoint exists" if last is None else f"the last good one is step {last}, untouched"
        return CheckpointError(
            f"checkpoint of step {step} could not be written in {self._folder} ({_reason(error)}); {left}: "
            "free some space or mend the folder and start the same command again"
        )


def saved_steps(folder: Path) -> list[int]:
    """Complete steps in a `checkpoints` folder, ascending."""
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal()) if folder.is_dir() else []


def load_meta(workdir: Path, step: int | None = None) -> Json:
    """The JSON saved with a checkpoint of a run folder (default: the newest): step, experiment, fingerprint, versions.

    Raises:
        CheckpointError: no such checkpoint, or unreadable.
    """
    folder = workdir / CHECKPOINT_FOLDER
    meta, _ = _description(folder, _existing_step(folder, step))
    return meta


def load_params(workdir: Path, step: int | None = None) -> tuple[Tree, Tree, Json]:
    """`(params, batch_stats, meta)` of a run folder's checkpoint (default: the newest), as numpy arrays.

    The optimizer is not read, and the mesh on which the run was trained does not matter.

    Raises:
        CheckpointError: no such checkpoint, unreadable or damaged.
    """
    folder = workdir / CHECKPOINT_FOLDER
    step = _existing_step(folder, step)
    meta, stored = _description(folder, step)
    names = ("params", "batch_stats")
    abstract = {name: jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), stored[name]) for name in names}
    # What can be wrong is looked for first: a failing load leaves pages of its threads' tracebacks behind.
    _check(folder, step, abstract)
    trees = _load(folder, step, abstract)
    return trees["params"], trees["batch_stats"], meta


def _existing_step(folder: Path, step: int | None) -> int:
    steps = saved_steps(folder)
    if not steps:
        raise CheckpointError(f"no checkpoint in {folder}; train the run first, or name another run folder")
    if step is not None and step not in steps:
        raise CheckpointError(f"no checkpoint of step {step} in {folder}; there are: {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def _description(folder: Path, step: int) -> tuple[Json, dict[str, Tree]]:
    """What was saved with a checkpoint, and the shapes of its trees."""
    try:
        description = ocp.checkpointables_metadata((folder / str(step)).absolute())
    except Exception as error:
        raise _unreadable(folder, step, _reason(error)) from error
    meta = description.custom_metadata
    if not isinstance(meta, dict) or "step" not in meta:
        raise _unreadable(folder, step, "its description is missing")
    return meta, description.metadata


def _check(folder: Path, step: int, abstract: dict[str, Tree]) -> None:
    step = _existing_step(folder, step)
    if jax.process_index() == 0:
        _verify_files(folder, step)
    _, stored = _description(folder, step)
    for name, tree in abstract.items():
        difference = _first_difference(stored.get(name), tree)
        if difference:
            raise _unreadable(folder, step, f"{name}: {difference}")


def _load(folder: Path, step: int, abstract: dict[str, Tree]) -> dict[str, Tree]:
    try:
        trees: dict[str, Tree] = ocp.load_checkpointables((folder / str(step)).absolute(), abstract)
    except Exception as error:
        raise _unreadable(folder, step, _reason(error)) from error
    return trees


def _first_difference(stored: Tree, wanted: Tree) -> str | None:
    """The first leaf that is stored in another shape or dtype than wanted, or only on one side."""
    there, here = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (stored, wanted))
    )
    for path in sorted(there.keys() | here.keys()):
        if path not in there or path not in here:
            return f"{path} is only {'wanted' if path in here else 'stored'}"
        if (there[path].shape, there[path].dtype) != (here[path].shape, here[path].dtype):
            stored_as, wanted_as = (f"{leaf.dtype}{list(leaf.shape)}" for leaf in (there[path], here[path]))
            return f"{path} is stored as {stored_as} and wanted as {wanted_as}"
    return None


def _finish(wait: Callable[[], bool], folder: Path) -> None:
    """Wait for a save and list its files; runs beside the training."""
    wait()
    if jax.process_index() == 0:
        listed = json.dumps(_file_hashes(folder), indent=0)
        with whole_file(folder / FILE_LIST) as part:
            part.write_text(listed)


def _file_hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(FILE_LIST)):
        with path.open("rb") as file:
            hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _verify_files(folder: Path, step: int) -> None:
    """Compare the files with their list; a run killed just before the list was written has none, and that is fine."""
    listed = folder / str(step) / FILE_LIST
    if not listed.exists():
        return
    try:
        expected, found = json.loads(listed.read_text()), _file_hashes(listed.parent)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, step, _reason(error)) from error
    wrong = [name for name, digest in expected.items() if found.get(name) != digest]
    if wrong:
        state = "changed since it was saved" if wrong[0] in found else "missing"
        raise _unreadable(folder, step, f"its file {wrong[0]} is {state}")


def _unreadable(folder: Path, step: int, reason: str) -> CheckpointError:
    earlier = [s for s in saved_steps(folder) if s < step]
    way_out = f"delete that folder to go on from step {earlier[-1]}" if earlier else "no earlier one is there"
    return CheckpointError(f"checkpoint {folder / str(step)} is damaged or of another model: {reason}; {way_out}")


def _reason(error: BaseException) -> str:
    """The innermost cause on one line; orbax wraps what went wrong in several layers."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split())[:300] or type(error).__name__


def _save_options() -> ocp.Context:
    """Replicas share the writing of large arrays only: cutting up small ones costs a compilation for each shape."""
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = 2**20
    return context


def _silence_repeated_errors() -> None:
    """Orbax's threads log a traceback each when a save fails; the failure itself is raised to the caller."""
    absl_logging.get_absl_logger().addFilter(_is_no_repeated_error)


def _is_no_repeated_error(record: logging.LogRecord) -> bool:
    return "_SignalingThread" not in record.getMessage()
