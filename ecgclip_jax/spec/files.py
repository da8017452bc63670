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
from pydantic import BaseModel, ValidationError

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
    try:
        spec.loader.exec_module(module)
        found = module.variants() if callable(getattr(module, "variants", None)) else None
    except ValidationError as error:
        raise ExperimentError(f"{path}: {explain(error)}") from error
    except Exception as error:  # the file is the user's own Python: whatever is wrong there, they can mend it
        raise ExperimentError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if found is None:
        raise ExperimentError(f"{path} defines no variants(); expected: def variants() -> dict[str, Experiment]")
    if not found or not isinstance(found, dict) or not all(isinstance(e, Experiment) for e in found.values()):
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
                prog="ecgclip train FILE",
                args=list(overrides),
                config=(tyro.conf.AvoidSubcommands,),
                description=f"Overrides for {experiment.name}: values can be changed, types only by a variant.",
            )
    except SystemExit as exit_request:
        if not exit_request.code:
            raise
        raise ExperimentError(_complaint(complaints.getvalue(), exit_request)) from None


def _complaint(boxed: str, exit_request: SystemExit) -> str:
    """One sentence from tyro's box of text, or from the validation error that tyro has put into it."""
    cause: BaseException | None = exit_request
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__context__
    # Its frame is drawn with lines or, where the console cannot, with hyphens; the text repeats the title on top.
    lines = [line.strip(" │╭╮╰╯") for line in boxed.splitlines()]
    _, *lines = [line for line in lines if not set(line) <= set("─-")] or [""]
    text = " ".join(lines)
    if isinstance(cause, ValidationError):
        part = re.match(r"Error parsing ([\w.-]+):", text)
        within = part.group(1).replace("-", "_") if part and part.group(1) != "Experiment" else ""
        return explain(cause, within)
    text = re.sub(r" Got errors: .*?(?= Argument helptext:|$)", "", text).removeprefix("Error parsing ")
    text = text.replace(" Argument helptext: ", "; expected ").split(" For full helptext")[0]
    return text or "the overrides could not be parsed"


def explain(error: ValidationError, within: str = "") -> str:
    """One clause per problem: where, what was expected, what was found.

    Args:
        error: what pydantic found.
        within: dotted name of the part of the experiment that was validated.
    """
    clauses = []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in (within, *item["loc"]) if part != "")
        if not item["loc"]:  # a rule over several values: its message names them
            clauses.append(message)
            continue
        found = "" if isinstance(item["input"], dict | BaseModel) else f", found {item['input']!r}"
        clauses.append(f"{where}: {message[0].lower()}{message[1:]}{found}")
    return "; ".join(clauses)
