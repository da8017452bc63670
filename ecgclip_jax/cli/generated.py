"""Synthetic cohorts are generated when a command needs them: a fresh machine has no data, and these need none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from ecgclip_jax.cli.prepare import prepare
from ecgclip_jax.data.sources import prepared_cohorts

GENERATED = ("synthetic_ecg", "synthetic_hospitals")


def prepare_generated(cohorts: Iterable[str], data_dir: Path, console: Console) -> None:
    """Generates those of the cohorts that are synthetic and not prepared, in their default size.

    Raises:
        UserError: see `prepare`.
    """
    there = prepared_cohorts(data_dir)
    for cohort in dict.fromkeys(cohorts):
        name = next((name for name in GENERATED if cohort == name or cohort.startswith(f"{name}_")), None)
        if name is None or cohort in there:
            continue
        options: dict[str, Any] = {} if cohort == name else {"world": cohort.removeprefix(f"{name}_")}
        console.print(f"generating {cohort} (synthetic, not prepared in {data_dir})", highlight=False, soft_wrap=True)
        prepare(name, data_dir=data_dir, console=console, **options)
