"""`ecgclip doctor`: what is installed, which devices there are, which data lie where, what is missing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecgclip_jax.cli.options import default_data_dir, parse
from ecgclip_jax.spec.local_cache import FOLDER_VARIABLE, cache_folder, kept_mib

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "array-record",
    "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "wfdb",
)  # fmt: skip
OPTIONAL = {"torch": "only for parity tests and benchmarks", "libtpu": "TPU", "jax-cuda13-plugin": "NVIDIA GPU"}


@dataclass
class DoctorArguments:
    """Look at this machine: versions, devices, memory, data folders, and what is missing."""

    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts."""


def main(words: list[str]) -> int:
    """Prints what was found; exit code 1 if something needed is missing."""
    arguments = parse(DoctorArguments, words, "doctor")
    console = Console()
    missing = _packages(console)
    _devices(console)
    _job(console)
    _folders(console, arguments.data_dir)
    _cache(console)
    for package in missing:
        console.print(f"[red]missing[/] {package}: run `make venv`, or pip install -c constraints.txt -e .")
    return 1 if missing else 0


def _packages(console: Console) -> list[str]:
    table = Table("package", "version", title=f"Python {platform.python_version()} on {platform.platform()}")
    missing = []
    for package in PACKAGES:
        try:
            table.add_row(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(package, "[red]missing[/]")
            missing.append(package)
    for package, purpose in OPTIONAL.items():
        try:
            table.add_row(package, f"{importlib.metadata.version(package)} ({purpose})")
        except importlib.metadata.PackageNotFoundError:
            table.add_row(package, f"not installed ({purpose})")
    console.print(table)
    return missing


def _devices(console: Console) -> None:
    import jax

    for device in jax.devices():
        statistics = device.memory_stats() or {}
        limit = statistics.get("bytes_limit")
        memory = f"{limit / 2**30:.0f} GiB" if limit else f"{_host_memory_gib():.0f} GiB host memory"
        console.print(f"device {device.id}: {device.platform} {device.device_kind}, {memory}", highlight=False)
    console.print(f"{os.cpu_count()} CPU cores", highlight=False)


def _job(console: Console) -> None:
    from ecgclip_jax.parallel.distributed import DistributedError, find_job

    try:
        job = find_job()
        console.print(f"job: {job or 'a single process'}", highlight=False, soft_wrap=True)
    except DistributedError as error:
        console.print(f"[red]job:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def _host_memory_gib() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2**30


def _folders(console: Console, data_dir: Path) -> None:
    if not data_dir.is_dir():
        console.print(
            f"no prepared cohorts: {data_dir} does not exist yet (ecgclip prepare synthetic_ecg makes one)",
            soft_wrap=True,
        )
        return
    free_gib = shutil.disk_usage(data_dir).free / 2**30
    table = Table("cohort", "version", "access", "ECGs", title=f"{data_dir} ({free_gib:.0f} GiB free)")
    for card in sorted(data_dir.glob("*/*/cohort.json")):
        cohort, version = card.parts[-3:-1]
        try:
            facts = json.loads(card.read_text(encoding="utf-8"))
            counts = ", ".join(f"{split} {n:,}" for split, n in facts.get("splits", {}).items())
            table.add_row(cohort, version, str(facts.get("access", "?")), counts)
        except (ValueError, OSError, AttributeError) as error:
            table.add_row(cohort, version, "?", f"[red]unreadable[/] cohort.json: {escape(str(error))}")
    console.print(
        table if table.rows else f"no prepared cohorts in {data_dir} ({free_gib:.0f} GiB free)", soft_wrap=True
    )


def _cache(console: Console) -> None:
    folder = cache_folder()
    if folder is None:
        said = f"filters and compiled programs are made in every process: ${FOLDER_VARIABLE} is empty"
    else:
        said = f"filters and compiled programs are kept in {folder} ({kept_mib(folder):.0f} MiB, ${FOLDER_VARIABLE})"
    console.print(said, highlight=False, soft_wrap=True, markup=False)
