"""Which processes make up a job, and how they come together: `jax.distributed`, started from the environment.

One function looks (`find_job`), one starts (`start_job`). JAX's own cluster detection finds the coordinator; what it
would get wrong or leave open is decided here: a single process starts nothing, one process per host keeps all of its
host's GPUs, and what is only half there is an error instead of several lonely runs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import jax

from ecgclip_jax.parallel.last_words import speak_when_aborted
from ecgclip_jax.spec.errors import UserError

Cluster = Literal["auto", "none", "slurm", "ompi", "gketpu", "gcetpu", "k8s", "mpi4py"]
"""Who started the processes; apart from `auto` and `none` these are `jax.distributed`'s own names."""

HEARTBEAT_TIMEOUT_S = 60
"""A process silent for so long is lost and the others stop ($ECGCLIP_HEARTBEAT_TIMEOUT_S). Our choice; JAX has 100."""
START_TIMEOUT_S = 300
"""How long the processes wait for each other at the start ($ECGCLIP_START_TIMEOUT_S); JAX's own default."""
LEAVE_TIMEOUT_S = 30
"""How long a process that is done waits for the others. Our choice: they end after the same step."""

_NAMES = {
    "explicit": "told explicitly",
    "slurm": "SLURM",
    "ompi": "Open MPI",
    "gketpu": "TPU slice of GKE",
    "gcetpu": "Cloud TPU VM",
    "k8s": "Kubernetes",
    "mpi4py": "mpi4py",
}
_SLURM_STEP = ("SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
_SAY_ALL = (
    "say all three: --coordinator HOST:PORT --num-processes N --process-id I "
    "(or ECGCLIP_COORDINATOR, ECGCLIP_NUM_PROCESSES, ECGCLIP_PROCESS_ID)"
)


class DistributedError(UserError):
    """Processes that cannot come together; the message says what is missing."""


@dataclass(frozen=True)
class JobFlags:
    """What the user says about the job; what is None here is looked for in `ECGCLIP_*`, then asked of the scheduler."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    cluster: Cluster | None = None


@dataclass(frozen=True)
class Job:
    """How this process joins the others; None is left to JAX's own detection."""

    found_by: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device: int | None = None
    """The only device of its host that this process takes; None: all of them."""

    def __str__(self) -> str:
        who = "" if self.process_id is None else f"process {self.process_id} of {self.num_processes}, "
        where = "" if self.coordinator is None else f", coordinator {self.coordinator}"
        return f"{who}{_NAMES[self.found_by]}{where}"


def find_job(flags: JobFlags | None = None, environment: Mapping[str, str] | None = None) -> Job | None:
    """The job this process belongs to, or None for a single process, which has nothing to start.

    What the user says counts first (flags, then `ECGCLIP_COORDINATOR`, `ECGCLIP_NUM_PROCESSES`, `ECGCLIP_PROCESS_ID`
    and `ECGCLIP_CLUSTER`), then Open MPI, SLURM, a TPU slice of GKE and a Cloud TPU VM. `mpirun` inside a SLURM job
    carries both schedulers' variables, so Open MPI comes first. Nothing is started and no device is touched.

    Raises:
        DistributedError: what is said or found is partial, contradicts itself or is no number.
    """
    env = os.environ if environment is None else environment
    said = _said(flags or JobFlags(), env)
    if said.cluster == "none" or said.num_processes == 1:
        return None
    if said.num_processes is not None or said.process_id is not None:
        return _explicit(said)
    found = _of_scheduler(said, env)
    if said.coordinator is None:
        return found
    if found is None or found.process_id is None:
        raise DistributedError(f"coordinator {said.coordinator} is given, but not which process this is: {_SAY_ALL}")
    return replace(found, coordinator=said.coordinator)


def start_job(job: Job) -> str:
    """Joins the other processes of `job` and says with what; must run before anything touches a device.

    Raises:
        DistributedError: the processes do not find each other in time, JAX cannot say who they are, or they do not
            have equally many devices.
    """
    # Its C++ handler would swallow every SIGTERM; `training.hooks` listens itself and agrees on a step.
    jax.config.update("jax_enable_preemption_service", False)
    complete = None not in (job.coordinator, job.num_processes, job.process_id)
    # JAX gives a process of SLURM or Open MPI the one GPU of its local rank, even if it is alone on its host: an
    # empty list is "all that are visible".
    devices = [] if job.local_device is None else [job.local_device]
    timeout_s = _seconds("ECGCLIP_START_TIMEOUT_S", START_TIMEOUT_S)
    # JAX aborts when the time is up; it raises for what it finds out by itself.
    speak_when_aborted(lambda: _apart(job, timeout_s, f"waited {timeout_s} s"))
    try:
        jax.distributed.initialize(
            job.coordinator,
            job.num_processes,
            job.process_id,
            local_device_ids=None if "JAX_LOCAL_DEVICE_IDS" in os.environ else devices,
            cluster_detection_method="deactivate" if complete else job.found_by,
            initialization_timeout=timeout_s,
            heartbeat_timeout_seconds=_seconds("ECGCLIP_HEARTBEAT_TIMEOUT_S", HEARTBEAT_TIMEOUT_S),
            shutdown_timeout_seconds=LEAVE_TIMEOUT_S,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise DistributedError(_apart(job, timeout_s, " ".join(str(error).split())[:300])) from error
    speak_when_aborted(lambda: "another process of the job was lost, or stopped with an error; its own log says more")
    return _joined()


def first_process() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def _apart(job: Job, timeout_s: int, reason: str) -> str:
    return (
        f"the processes of the job ({job}) did not come together ({reason}); check that all of them were started, that "
        f"HOST:PORT of the coordinator is free there and can be reached from every host, and, if hosts need more than "
        f"{timeout_s} s to start, set ECGCLIP_START_TIMEOUT_S"
    )


def _joined() -> str:
    counts = Counter(device.process_index for device in jax.devices())
    numbers = [counts[process] for process in range(jax.process_count())]
    if len(set(numbers)) > 1:
        raise DistributedError(
            f"the processes have {', '.join(map(str, numbers))} devices; all must have equally many: check the "
            "devices of each host, or leave some out with JAX_LOCAL_DEVICE_IDS"
        )
    return (
        f"joined as process {jax.process_index()} of {jax.process_count()} with {jax.local_device_count()} of "
        f"{jax.device_count()} {jax.local_devices()[0].device_kind} devices"
    )


def _said(flags: JobFlags, env: Mapping[str, str]) -> JobFlags:
    cluster = flags.cluster or env.get("ECGCLIP_CLUSTER")
    if cluster not in (None, "auto", "none", *_NAMES) or cluster == "explicit":
        names = ", ".join(("auto", "none", *(name for name in _NAMES if name != "explicit")))
        raise DistributedError(f"ECGCLIP_CLUSTER is {cluster!r}; expected one of {names}")
    return JobFlags(
        flags.coordinator or env.get("ECGCLIP_COORDINATOR") or None,
        _number(env, "ECGCLIP_NUM_PROCESSES") if flags.num_processes is None else flags.num_processes,
        _number(env, "ECGCLIP_PROCESS_ID") if flags.process_id is None else flags.process_id,
        cluster,  # type: ignore[arg-type]
    )


def _explicit(said: JobFlags) -> Job:
    given = {"coordinator": said.coordinator, "number of processes": said.num_processes, "process id": said.process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        there = [f"{name} {value}" for name, value in given.items() if value is not None]
        raise DistributedError(f"{' and '.join(there)} given, but no {' and no '.join(missing)}: {_SAY_ALL}")
    assert said.num_processes is not None
    assert said.process_id is not None
    if not 0 <= said.process_id < said.num_processes:
        raise DistributedError(
            f"process id {said.process_id} of {said.num_processes} processes; they are numbered from 0 to "
            f"{said.num_processes - 1}"
        )
    host, _, port = str(said.coordinator).rpartition(":")
    if not host or not port.isdecimal():
        raise DistributedError(f"coordinator {said.coordinator!r} is not HOST:PORT, for example node001:12355")
    return Job("explicit", said.coordinator, said.num_processes, said.process_id)


def _of_scheduler(said: JobFlags, env: Mapping[str, str]) -> Job | None:
    cluster = said.cluster or "auto"
    if cluster in ("k8s", "mpi4py", "gcetpu"):
        return Job(cluster)
    if cluster in ("auto", "ompi") and "OMPI_COMM_WORLD_SIZE" in env:
        return _open_mpi(said, env)
    if cluster in ("auto", "slurm") and "SLURM_JOB_ID" in env:
        return _slurm(env)
    if cluster in ("auto", "gketpu") and ("TPU_WORKER_HOSTNAMES" in env or "TPU_PROCESS_ADDRESSES" in env):
        return _gke_tpu(env)
    if cluster == "auto":
        return Job("gcetpu") if _on_cloud_tpu_vm(env) else None
    raise DistributedError(f"--cluster {cluster}: none of the variables of {_NAMES[cluster]} are set; leave it out")


def _open_mpi(said: JobFlags, env: Mapping[str, str]) -> Job | None:
    size, rank = _number(env, "OMPI_COMM_WORLD_SIZE"), _number(env, "OMPI_COMM_WORLD_RANK")
    if size == 1:
        return None
    if rank is None:
        raise DistributedError("OMPI_COMM_WORLD_SIZE is set without OMPI_COMM_WORLD_RANK; start with mpirun")
    if "OMPI_MCA_orte_hnp_uri" not in env and said.coordinator is None:
        raise DistributedError(
            f"Open MPI started {size} processes but does not say on which host the first one runs (since version 5): "
            "add --coordinator HOST:PORT, the same for all"
        )
    alone = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE") == 1
    return Job("ompi", None, size, rank, None if alone else _number(env, "OMPI_COMM_WORLD_LOCAL_RANK"))


def _slurm(env: Mapping[str, str]) -> Job | None:
    tasks = _number(env, "SLURM_NTASKS")
    if tasks is None or tasks == 1:
        return None
    missing = [name for name in _SLURM_STEP if name not in env]
    if missing:
        raise DistributedError(
            f"SLURM gave this job {tasks} tasks, but this process was not started by srun ({', '.join(missing)} not "
            "set): put srun before the command, or --num-processes 1 after it for a single process"
        )
    # One task per host has all GPUs of the host; a task that SLURM bound to one GPU sees only that one, as number 0.
    alone = tasks == _number(env, "SLURM_STEP_NUM_NODES") or tasks == _number(env, "SLURM_NNODES")
    bound = len(env.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")) == 1
    local = None if alone or bound else _number(env, "SLURM_LOCALID")
    return Job("slurm", None, tasks, _number(env, "SLURM_PROCID"), local)


def _gke_tpu(env: Mapping[str, str]) -> Job | None:
    hosts = len((env.get("TPU_PROCESS_ADDRESSES") or env["TPU_WORKER_HOSTNAMES"]).split(","))
    n = hosts * (_number(env, "MEGASCALE_NUM_SLICES") or 1)
    return Job("gketpu") if n > 1 else None


def _on_cloud_tpu_vm(env: Mapping[str, str]) -> bool:
    """TPU chips of this host, and nobody who forbids asking Google's metadata server who its neighbours are."""
    chips = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    wanted = env.get("JAX_PLATFORMS", "tpu").split(",")[0] == "tpu" and "TPU_SKIP_MDS_QUERY" not in env
    return chips and wanted and find_spec("libtpu") is not None


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if text is None or text == "":
        return None
    if not text.isdecimal():
        raise DistributedError(f"{name} is {text!r}; expected a number")
    return int(text)


def _seconds(name: str, default: int) -> int:
    return _number(os.environ, name) or default
