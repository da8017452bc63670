"""Proofs that take longer than a test: `make proofs NAME`. Each prints its figures and fails if a claim does not hold.

Their small forms stand in tests/; their figures, with commit and date, in BUILD_NOTES.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bootstrap_coverage import bootstrap_coverage
from benchmarks.common import environment
from benchmarks.mimic_lookalike import mimic_lookalike
from benchmarks.objective_proof import objectives
from ecgclip_jax.cli.evaluate import EvaluateArguments, evaluate_run
from ecgclip_jax.cli.prepare import prepare
from ecgclip_jax.evaluation.results import ResultRow, Results
from ecgclip_jax.spec.files import load_experiment
from ecgclip_jax.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED, UNTRAINED, TRIVIAL = "pre-trained", "untrained seed 0", "trivial features"


@dataclass(frozen=True)
class Claim:
    """A number and the bounds it has to keep; without bounds it is only reported."""

    what: str
    row: ResultRow
    low: float | None = None
    high: float | None = None
    interval_above: float | None = None

    @property
    def holds(self) -> bool | None:
        """None where nothing was claimed."""
        if self.low is None and self.high is None and self.interval_above is None:
            return None
        return (
            (self.low is None or self.row.value >= self.low)
            and (self.high is None or self.row.value <= self.high)
            and (self.interval_above is None or self.row.ci_low > self.interval_above)
        )


def demo_claims(folder: Path, console: Console) -> bool:
    """The demo's claims on hospital C, never trained on: base run and the null world of shuffled reports."""
    base, null = (_demo_run(variant, folder, console) for variant in ("base", "shuffled_reports"))

    def macro(results: Results, protocol: str, group: str, model: str = PRETRAINED, minus: str = "") -> ResultRow:
        (row,) = results.find(
            model=model,
            compared_with=minus,
            protocol=protocol,
            split="external",
            label="macro",
            label_group=group,
            metric="auroc",
        )
        return row

    claims = [
        Claim("zero-shot macro AUROC, concepts named in training reports", macro(base, "zero_shot", "seen"), low=0.80),
        Claim("zero-shot macro AUROC, concepts never named", macro(base, "zero_shot", "unseen")),
        Claim("zero-shot after training on shuffled reports", macro(null, "zero_shot", "seen"), low=0.45, high=0.55),
        Claim("probe on trivial features", macro(base, "linear_probe", "all", TRIVIAL), high=0.75),
        Claim("probe of the pre-trained encoder", macro(base, "linear_probe", "all")),
        Claim("probe of the untrained encoder", macro(base, "linear_probe", "all", UNTRAINED)),
        Claim(
            "probe: pre-trained minus untrained",
            macro(base, "linear_probe", "all", minus=UNTRAINED),
            interval_above=0.0,
        ),
    ]
    table = Table(
        "claim (synthetic data)", "value", "95 % interval", "holds", title=f"demo_claims, {environment()['commit']}"
    )
    for claim in claims:
        row, verdict = claim.row, {True: "yes", False: "[red]NO[/]", None: "reported"}[claim.holds]
        table.add_row(claim.what, f"{row.value:.3f}", f"{row.ci_low:.3f} to {row.ci_high:.3f}", verdict)
    console.print(table)
    return all(claim.holds is not False for claim in claims)


def _demo_run(variant: str, folder: Path, console: Console) -> Results:
    # Other patients than the demo's: its settings were chosen while looking at those.
    prepare("synthetic_ecg", data_dir=folder / "data", seed=1, console=console)
    experiment = load_experiment(ROOT / "experiments" / "demo.py", variant)
    workdir = folder / experiment.name
    train(experiment, workdir, folder / "data")
    return evaluate_run(EvaluateArguments(run=workdir, data_dir=folder / "data"), console)


PROOFS: dict[str, Callable[[Path, Console], bool]] = {
    "demo_claims": demo_claims,
    "objectives": objectives,
    "bootstrap_coverage": bootstrap_coverage,
    "mimic_lookalike": mimic_lookalike,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the named proofs; without a name lists them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="proofs to run")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "proofs", help="where runs and cohorts lie")
    arguments = parser.parse_args(argv)
    console = Console(width=None if Console().is_terminal else 150)
    unknown = [name for name in arguments.names if name not in PROOFS]
    if unknown or not arguments.names:
        for name, proof in PROOFS.items():
            console.print(f"{name}: {(proof.__doc__ or '').splitlines()[0]}", highlight=False)
        return 2 if unknown else 0
    results = [PROOFS[name](arguments.folder / name, console) for name in arguments.names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
