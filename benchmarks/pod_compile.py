"""ECGCLIP's pre-training step compiled for pods that nobody here owns: `make compile-pod`.

Compiles `experiments/ecgclip.py` (r34, global batch 65,536, frozen BERT-base in the loop) for every target whose
compiler is installed in this environment, each in a process of its own, and prints all answers found in the folder as
two Markdown tables. Bounds, not times: nothing runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ecgclip_jax.parallel.targets import compiler_installed, parse_target

ROOT = Path(__file__).resolve().parents[1]
BATCH = 65_536


class Case(NamedTuple):
    """A pod, and in how many micro-batches its towers see the global batch."""

    target: str
    micro_batches: int = 1

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.target.replace(':', '_')}_m{self.micro_batches}"


CASES = (
    Case("v5e:16x16"),
    Case("v6e:16x16"),
    Case("h200:8"),
    Case("h200:8", 8),
    Case("h200:64"),
    Case("h200", 64),
)


def compile_case(case: Case, folder: Path) -> None:
    """Runs `ecgclip compile` for one case; its tables go to the console, its figures and program to `folder`."""
    command = [
        sys.executable, "-m", "ecgclip_jax.cli.main", "compile", str(ROOT / "experiments" / "ecgclip.py"),
        "--variant", "r34", "--target", case.target,
        "--json", str(folder / f"{case.name}.json"), "--hlo", str(folder / f"{case.name}.hlo"),
        "--data.batch-global", str(BATCH), "--memory.micro-batches", str(case.micro_batches),
        "--ecg-encoder.norm-groups", str(case.micro_batches),
    ]  # fmt: skip
    answer = subprocess.run(command, cwd=ROOT, check=False)
    if answer.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {answer.returncode}")


def overview(answers: Sequence[dict[str, Any]]) -> str:
    """A row per compiled step: what it needs and what bounds it."""
    lines = [
        "| target | ECGs per device | micro-batches | needs / has, GiB | temporary, GiB | GFLOP per ECG | MB per ECG | "
        "sent per device, MiB | compute / memory / interconnect, ms | at most, ECG/s | compiled in |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for facts in answers:
        memory, bound = facts["memory"], facts["roofline"]
        fits = "" if memory["fits"] else " **does not fit**"
        gib = [f"{memory[name] / 2**30:.1f}" if memory[name] else "?" for name in ("needed", "limit", "temporary")]
        cells = [f"{facts['target']}", f"{facts['batch_per_device']:,}", f"{facts['micro_batches']}"]
        cells += [f"{gib[0]} / {gib[1]}{fits}", gib[2]]
        if bound is None:
            cells += [""] * 5
        else:
            flops = sum(facts["flops"].values()) / facts["batch_per_device"]
            sent = sum(row["sent_bytes"] for row in facts["collectives"])
            parts = " / ".join(f"{bound[name] * 1e3:,.1f}" for name in ("compute_s", "memory_s", "interconnect_s"))
            cells += [f"{flops / 1e9:.1f}", f"{facts['bytes_per_ecg'] / 1e6:.0f}", f"{sent / 2**20:,.0f}", parts]
            cells += [f"{facts['ecg_per_s_bound']:,.0f} ({bound['bound_by']})"]
        cells.append(f"{facts['compile_s']:.0f} s")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_kernel(answers: Sequence[dict[str, Any]]) -> str:
    """MB per ECG by kind of kernel, a column per compiled step."""
    with_bytes = [facts for facts in answers if facts["bytes"]]
    kinds = sorted({kind for facts in with_bytes for kind in facts["bytes"]})
    head = [f"{facts['target']}, M = {facts['micro_batches']}" for facts in with_bytes]
    lines = [f"| MB per ECG | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for kind in kinds:
        cells = [f"{facts['bytes'].get(kind, {'n_bytes': 0})['n_bytes'] / facts['batch_per_device'] / 1e6:.2f}"
                 for facts in with_bytes]  # fmt: skip
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Compiles what can be compiled here, then prints everything that the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "compiled", help="figures and program texts")
    parser.add_argument("--tables-only", action="store_true", help="compile nothing, print what is there")
    arguments = parser.parse_args(argv)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    here = [case for case in CASES if compiler_installed(parse_target(case.target))]
    for case in () if arguments.tables_only else here:
        compile_case(case, arguments.folder)
    found = [arguments.folder / f"{case.name}.json" for case in CASES]
    answers = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.is_file()]
    print(f"{overview(answers)}\n\n{by_kernel(answers)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
