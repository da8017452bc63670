"""`ecgclip train FILE`: pre-training, from nothing or from where the run stopped, by one process or by many."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from ecgclip_jax.cli.generated import prepare_generated
from ecgclip_jax.cli.options import default_data_dir, parse_with_overrides
from ecgclip_jax.parallel.distributed import Cluster, JobFlags, find_job, first_process, start_job
from ecgclip_jax.spec.files import load_experiment


@dataclass
class TrainArguments:
    """Pre-train an experiment. The same command resumes a run that was stopped, and does nothing to a finished one.

    On several hosts start the same command on each (srun, mpirun, a JobSet): who takes part is read from the
    environment, or said with the last four flags (experiments/launch/README.md).

    Dotted overrides of the experiment may follow, for example `--optimizer.peak-lr 3e-4 --run.steps 2000`;
    `ecgclip show FILE --overrides-help` lists them all.
    """

    file: tyro.conf.Positional[Path]
    """Experiment file, for example experiments/demo.py."""
    variant: str | None = None
    """A variant of the file; without it the first one."""
    workdir: Path | None = None
    """Run folder, the same for all processes; without it runs/<name of the experiment>."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts ($ECGCLIP_DATA or ./data)."""
    coordinator: str | None = None
    """HOST:PORT on which process 0 gathers the others ($ECGCLIP_COORDINATOR)."""
    num_processes: int | None = None
    """How many processes make up the job ($ECGCLIP_NUM_PROCESSES); 1 starts nothing, whatever a scheduler says."""
    process_id: int | None = None
    """Which of them this is, from 0 ($ECGCLIP_PROCESS_ID)."""
    cluster: Cluster | None = None
    """Who started the processes ($ECGCLIP_CLUSTER); without it Open MPI, SLURM and TPU slices are recognised."""


def main(words: list[str]) -> int:
    """Trains and says where the run lies."""
    arguments, overrides = parse_with_overrides(TrainArguments, words, "train")
    experiment = load_experiment(arguments.file, arguments.variant, overrides)
    job = find_job(JobFlags(arguments.coordinator, arguments.num_processes, arguments.process_id, arguments.cluster))
    if job is not None:
        print(f"ecgclip train: {job}", file=sys.stderr, flush=True)
        print(f"ecgclip train: {start_job(job)}", file=sys.stderr, flush=True)
    else:
        prepare_generated((source.cohort for source in experiment.data.sources), arguments.data_dir, Console())
    from ecgclip_jax.training.loop import train

    workdir = arguments.workdir or Path("runs") / experiment.name
    train(experiment, workdir, arguments.data_dir)
    if job is None or first_process():
        print(f"run folder: {workdir}\nnext: ecgclip evaluate {workdir}")
    return 0
