"""Who takes part in a job, from what schedulers put into the environment; half information is an error."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from ecgclip_jax.parallel import distributed
from ecgclip_jax.parallel.agreement import Vote, by_first_process, exchange, require_same, together
from ecgclip_jax.parallel.distributed import DistributedError, Job, JobFlags, find_job, start_job
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import MeshSpec

SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[003-004]",
    "SLURM_STEP_NUM_NODES": "2",
}
ONE_PER_HOST = {"SLURM_STEP_NUM_NODES": "16", "SLURM_LOCALID": "0"}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
MPIRUN_5 = {name: value for name, value in MPIRUN.items() if "orte" not in name}
SAID = {"ECGCLIP_COORDINATOR": "node3:1234", "ECGCLIP_NUM_PROCESSES": "2", "ECGCLIP_PROCESS_ID": "1"}
GKE = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "2"}
EXPLICIT = Job("explicit", "node3:1234", 2, 1)


@pytest.mark.parametrize(
    ("environment", "flags", "job"),
    [
        ({}, JobFlags(), None),
        (SAID, JobFlags(), EXPLICIT),
        ({}, JobFlags("node3:1234", 2, 1), EXPLICIT),
        (SAID | SRUN, JobFlags(process_id=0), Job("explicit", "node3:1234", 2, 0)),
        (SRUN, JobFlags(), Job("slurm", None, 16, 9, local_device=1)),
        (SRUN | ONE_PER_HOST, JobFlags(), Job("slurm", None, 16, 9)),
        (SRUN | {"CUDA_VISIBLE_DEVICES": "1"}, JobFlags(), Job("slurm", None, 16, 9)),
        (SRUN, JobFlags(coordinator="node003:99"), Job("slurm", "node003:99", 16, 9, local_device=1)),
        (SRUN | {"SLURM_NTASKS": "1"}, JobFlags(), None),
        ({"SLURM_JOB_ID": "4711"}, JobFlags(), None),
        (SRUN, JobFlags(num_processes=1), None),
        (SRUN | {"ECGCLIP_CLUSTER": "none"}, JobFlags(), None),
        (MPIRUN, JobFlags(), Job("ompi", None, 4, 3, local_device=1)),
        (MPIRUN | SRUN, JobFlags(), Job("ompi", None, 4, 3, local_device=1)),
        (MPIRUN | SRUN, JobFlags(cluster="slurm"), Job("slurm", None, 16, 9, local_device=1)),
        (MPIRUN_5, JobFlags(coordinator="10.0.0.1:99"), Job("ompi", "10.0.0.1:99", 4, 3, local_device=1)),
        (MPIRUN | {"OMPI_COMM_WORLD_SIZE": "1"}, JobFlags(), None),
        (GKE, JobFlags(), Job("gketpu")),
        (GKE | {"TPU_WORKER_HOSTNAMES": "a"}, JobFlags(), None),
        (GKE | {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, JobFlags(), Job("gketpu")),
        ({}, JobFlags(cluster="gcetpu"), Job("gcetpu")),
    ],
)
def test_the_job_is_found(environment: dict[str, str], flags: JobFlags, job: Job | None) -> None:
    assert find_job(flags, environment) == job


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ECGCLIP_PROCESS_ID": "1"}, "process id 1 given, but no coordinator and no number of processes: say all"),
        ({"ECGCLIP_COORDINATOR": "a:1"}, "coordinator a:1 is given, but not which process this is"),
        (SAID | {"ECGCLIP_PROCESS_ID": "2"}, "process id 2 of 2 processes; they are numbered from 0 to 1"),
        (SAID | {"ECGCLIP_COORDINATOR": "node3"}, "'node3' is not HOST:PORT"),
        (SAID | {"ECGCLIP_NUM_PROCESSES": "two"}, "ECGCLIP_NUM_PROCESSES is 'two'; expected a number"),
        ({"ECGCLIP_CLUSTER": "pbs"}, "ECGCLIP_CLUSTER is 'pbs'; expected one of auto, none, slurm"),
        ({"ECGCLIP_CLUSTER": "slurm"}, "--cluster slurm: none of the variables of SLURM are set"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "not started by srun .*put srun before"),
        (MPIRUN_5, r"Open MPI started 4 processes but does not say .*add --coordinator HOST:PORT"),
    ],
)
def test_what_is_only_half_there_is_an_error(environment: dict[str, str], message: str) -> None:
    with pytest.raises(DistributedError, match=message):
        find_job(JobFlags(), environment)


def test_it_says_what_it_found() -> None:
    assert str(EXPLICIT) == "process 1 of 2, told explicitly, coordinator node3:1234"
    assert str(Job("gketpu")) == "TPU slice of GKE"


def test_jax_is_asked_only_for_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process per host keeps all GPUs (an empty list), though JAX alone would give it the first one."""
    asked: list[dict] = []
    monkeypatch.setattr(distributed, "speak_when_aborted", lambda message: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *words, **named: asked.append({"words": words} | named))
    assert "joined as process 0 of 1 with 8 of 8 cpu devices" in start_job(Job("slurm", None, 16, 9))
    start_job(Job("slurm", "a:1", 16, 9, local_device=1))
    assert [call["words"] for call in asked] == [(None, 16, 9), ("a:1", 16, 9)]
    assert [call["local_device_ids"] for call in asked] == [[], [1]]
    assert [call["cluster_detection_method"] for call in asked] == ["slurm", "deactivate"]
    assert asked[0]["heartbeat_timeout_seconds"] == distributed.HEARTBEAT_TIMEOUT_S


def test_a_start_that_fails_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object, **named: object) -> None:
        raise RuntimeError("DEADLINE_EXCEEDED: barrier")

    monkeypatch.setattr(distributed, "speak_when_aborted", lambda message: None)
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(DistributedError, match=r"node3:1234\) did not come together \(DEADLINE_EXCEEDED: barrier\)"):
        start_job(EXPLICIT)


def test_one_process_agrees_with_itself(tmp_path: Path) -> None:
    def fail() -> None:
        raise UserError("mine")

    assert exchange({"a": [1, None]}) == [{"a": [1, None]}]
    assert together(lambda: 3) == 3
    by_first_process((tmp_path / "made").mkdir)
    require_same({"seed": 1})
    assert (tmp_path / "made").is_dir()
    with pytest.raises(UserError, match="mine"):
        together(fail)
    assert int(Vote(build_mesh(MeshSpec())).cast(7)) == 7
