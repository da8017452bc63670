"""Jobs of two real processes, which share the compilation cache of the tests' own process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.tiny_cohort import tiny_record, write_cohort

PROCESSES, DEVICES_PER_PROCESS = 2, 4
TIMEOUT_S = 900


@dataclass(frozen=True)
class Ended:
    """How one process of a job ended."""

    exit_code: int
    stderr: str
    results: list[dict[str, Any]]
    """Of a `member.py`: one per run that came to an end."""


StartJob = Callable[[Sequence[Sequence[str]]], list[Ended]]


@pytest.fixture(scope="session")
def run_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort `tiny`: 50 ECGs of 25 patients, so an epoch of three batches of 16."""
    data_dir = tmp_path_factory.mktemp("run_data")
    write_cohort(data_dir, {"train": [tiny_record(n) for n in range(50)]})
    return data_dir


@pytest.fixture(scope="session")
def start() -> StartJob:
    """Starts one command per process of a job, which learn of each other from `ECGCLIP_*`, and waits for their ends."""
    common = {
        # The last of equal flags holds.
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES_PER_PROCESS}",
        "ECGCLIP_NUM_PROCESSES": str(PROCESSES),
    }

    def start(commands: Sequence[Sequence[str]]) -> list[Ended]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        running = [
            subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=Path(__file__).parents[2],
                env=os.environ | common | {"ECGCLIP_COORDINATOR": address, "ECGCLIP_PROCESS_ID": str(process)},
                stdout=subprocess.DEVNULL,  # the collectives' library writes there
                stderr=subprocess.PIPE,
                text=True,
            )
            for process, command in enumerate(commands)
        ]
        try:
            said = [process.communicate(timeout=TIMEOUT_S)[1] for process in running]
        finally:
            for process in running:
                process.kill()
        return [Ended(process.returncode, text, []) for process, text in zip(running, said, strict=True)]

    return start


@pytest.fixture(scope="session")
def two_processes(start: StartJob, run_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Has two processes do the runs of `orders` (`member.py`), one after the other."""

    def two_processes(*orders: dict[str, Any]) -> list[Ended]:
        report = tmp_path_factory.mktemp("job") / "report"
        command = [str(Path(__file__).with_name("member.py")), str(report), str(run_data), json.dumps(orders)]
        ended = start([command] * PROCESSES)
        files = [report.with_suffix(f".{process}.json") for process in range(PROCESSES)]
        results = [json.loads(file.read_text()) if file.exists() else [] for file in files]
        return [Ended(end.exit_code, end.stderr, result) for end, result in zip(ended, results, strict=True)]

    return two_processes
