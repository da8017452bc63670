"""A run that begins with the weights of another: which are taken over, and what must be equal for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ecgclip_jax.checkpoints import load_params
from ecgclip_jax.parallel.rules import leaf_paths
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment, StartSpec
from ecgclip_jax.text.tokenizer import fingerprint, load_tokenizer
from ecgclip_jax.training.state import TrainingParts, TrainState, Tree, init_state


class StartError(UserError):
    """Weights that this experiment cannot begin with; the message says what differs."""


def start_state(parts: TrainingParts, mesh: Mesh) -> TrainState:
    """The state before the first step of a run: random weights, those from files, and those of another run.

    Raises:
        StartError: the other run has another input or other shapes.
        CheckpointError: it has no such checkpoint, or a damaged one.
    """
    start = parts.experiment.start
    if start is None:
        return init_state(parts, mesh)
    params, stats, meta = load_params(Path(start.run), start.step)
    _check_experiment(start, parts.experiment, meta)  # before the compilation of a large model's initial state
    state = init_state(parts, mesh)
    found: Tree = {part: _taken(start, part, params, state.params) for part in start.parts}
    params = state.params | _placed(found, state.params)
    if "ecg" not in start.parts:
        return replace(state, params=params)
    stats = _placed({"ecg": stats["ecg"]}, state.batch_stats)
    target = state.target | {"ecg": jax.tree.map(lambda x: x.copy(), params["ecg"])} if state.target else {}
    target_stats = jax.tree.map(lambda x: x.copy(), stats) if state.target else {}
    return replace(state, params=params, batch_stats=stats, target=target, target_stats=target_stats)


def _check_experiment(start: StartSpec, experiment: Experiment, meta: dict[str, Any]) -> None:
    """The same input and encoder, and for the text tower the same tokens."""
    there = Experiment.model_validate(meta["experiment"])
    free = {"norm_groups", "norm_momentum", "dtype"}
    pairs: list[tuple[str, Any, Any]] = []
    if "ecg" in start.parts:
        pairs += [(name, getattr(there, name), getattr(experiment, name)) for name in ("signal", "view")]
        before, now = (e.ecg_encoder.model_dump(exclude=free) for e in (there, experiment))
        pairs.append(("ecg_encoder", before, now))
    for name, before, now in pairs:
        if before != now:
            raise StartError(f"start.run {start.run} was trained with another {name}: {before} there, {now} here")
    if "text" in start.parts:
        assert experiment.text_encoder is not None
        source = Path(experiment.text_encoder.tokenizer.source)
        if not source.is_dir() or fingerprint(load_tokenizer(source)) != meta["tokenizer_fingerprint"]:
            raise StartError(
                f"start.parts has 'text', so text_encoder.tokenizer.source must be the tokenizer of {start.run} "
                f"({Path(start.run) / 'tokenizer'}); found {source}"
            )


def _taken(start: StartSpec, part: str, params: Tree, own: Tree) -> Tree:
    """One part of the other run's parameters; of an objective what both have.

    Raises:
        StartError: a tower that is missing or has other shapes.
    """
    if part == "objective":
        there, here = params[part], dict(own[part])
        return here | {
            name: there[name] for name in here if name in there and _shapes(there[name]) == _shapes(here[name])
        }
    if part not in params or part not in own:
        raise StartError(f"start.parts has {part!r}, which {start.run if part not in params else 'this run'} lacks")
    if _shapes(params[part]) != _shapes(own[part]):
        differing = set(_shapes(params[part]).items()) ^ set(_shapes(own[part]).items())
        raise StartError(f"start.run {start.run}: {part} has other shapes: {sorted(map(str, differing))[:4]}")
    return {**params[part]}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)}


def _placed(found: Tree, like: Tree) -> Tree:
    """Arrays where the state's own lie."""
    return {
        name: jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), part, like[name])
        for name, part in found.items()
    }
