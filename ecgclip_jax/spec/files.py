"""Experiment files: load one, pick a variant, apply overrides, say clearly what is wrong."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from pydantic import ValidationError

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Experiment


class ExperimentError(UserError):
    """An experiment file, variant or override that cannot be used; the message says what to do."""


def load_variants(path: str | Path) -> dict[str, Experiment]:
    """All variants of an experiment file, the default first.

    An experiment file defines `variants() -> dict[str, Experiment]` and imports only `ecgclip_jax.spec`.

    Raises:
        ExperimentError: no such file, no `variants` function, or a variant that does not validate.
    """
    path = Path(path)
    if not path.is_file():
        raise ExperimentError(f"no experiment file at {path}; shipped ones are in experiments/ (for example demo.py)")
    spec = importlib.util.spec_from_file_location(f"_ecgclip_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ExperimentError(f"{path} is not a Python file; an experiment file is Python with variants() in it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not callable(getattr(module, "variants", None)):
        raise ExperimentError(f"{path} defines no variants(); expected: def variants() -> dict[str, Experiment]")
    try:
        found = module.variants()
    except ValidationError as error:
        raise ExperimentError(f"{path}: {explain(error)}") from None
    if not found or not all(isinstance(e, Experiment) for e in found.values()):
        raise ExperimentError(f"{path}: variants() must return a dictionary of name → Experiment, not empty")
    return dict(found)


def load_experiment(path: str | Path, variant: str | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """One resolved experiment: the file's default or named variant with dotted overrides applied.

    Overrides are command-line words such as `--optimizer.peak-lr 3e-4`: they change values, only variants change types.

    Raises:
        ExperimentError: an unknown variant, an unknown key or a value out of range.
    """
    found = load_variants(path)
    name = next(iter(found)) if variant is None else variant
    if name not in found:
        raise ExperimentError(f"{path} has no variant {name!r}; it has: {', '.join(found)}")
    if not overrides:
        return found[name]
    return apply_overrides(found[name], overrides)


def apply_overrides(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment with dotted overrides applied and everything validated again; `--help` prints and exits.

    Raises:
        ExperimentError: an unknown key or a value out of range.
    """
    complaints = io.StringIO()
    quiet = contextlib.nullcontext() if {"-h", "--help"} & set(overrides) else contextlib.redirect_stderr(complaints)
    try:
        with quiet:
            return tyro.cli(
                Experiment,
                default=experiment,
                args=list(overrides),
                config=(tyro.conf.AvoidSubcommands,),
                description=f"Overrides for {experiment.name}: values can be changed, types only by a variant.",
            )
    except ValidationError as error:
        raise ExperimentError(explain(error)) from None
    except SystemExit as exit_request:
        if not exit_request.code:
            raise
        raise ExperimentError(_plain(complaints.getvalue())) from None


def _plain(boxed: str) -> str:
    """The text of tyro's boxed message on one line, without frames and advice about help texts."""
    lines = (line.strip(" │╭╮╰╯─").strip() for line in boxed.splitlines())
    kept = [x for x in lines if x and not x.startswith(("For further information", "https://", "For full helptext"))]
    return re.sub(r" \[type=.*?\](?= |$)", "", " ".join(kept)) or "the overrides could not be parsed"


def explain(error: ValidationError) -> str:
    """One line per problem: where, what was expected, what was found."""
    lines = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"]) or "experiment"
        found = "" if isinstance(item.get("input"), dict | Experiment) else f" (found {item.get('input')!r})"
        lines.append(f"{where}: {item['msg']}{found}")
    return "; ".join(lines)
