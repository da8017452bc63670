"""The launch files are valid, agree with themselves, and start an experiment whose batch divides their devices."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.files import load_experiment

ROOT = Path(__file__).parents[2]
SLURM, JOBSET = (ROOT / "experiments" / "launch" / name for name in ("slurm.sh", "jobset.yaml"))
CHIPS_PER_VM = {"tpu-v6e-slice": 4, "tpu-v5-lite-podslice": 4}
"""Of GKE's machines for slices of several hosts (ct6e-standard-4t, ct5lp-hightpu-4t)."""


def experiment_of(words: list[str]) -> Experiment:
    """What `ecgclip train …` would train."""
    assert words[:2] == ["ecgclip", "train"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    variant = options.pop("--variant")
    assert options.pop("--workdir")
    return load_experiment(ROOT / words[2], variant, [word for pair in options.items() for word in pair])


@pytest.fixture(scope="module")
def jobset() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(JOBSET.read_text())
    return loaded


def test_slurm_script_is_valid_and_its_batch_divides() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.MULTILINE))
    assert asked["ntasks-per-node"] == "1"
    assert asked["signal"].startswith("TERM@")
    command = text.replace("\\\n", " ")
    words = shlex.split(next(line for line in command.splitlines() if line.startswith("srun")))
    experiment = experiment_of(words[words.index("ecgclip") :])
    devices = int(asked["nodes"]) * int(asked["gpus-per-node"])
    assert experiment.data.batch_global == 65_536
    assert experiment.data.batch_global % (devices * experiment.memory.micro_batches) == 0


def test_jobset_has_a_pod_for_every_vm_of_its_topology(jobset: dict[str, Any]) -> None:
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    selector = pod["nodeSelector"]
    chips = math.prod(int(side) for side in selector["cloud.google.com/gke-tpu-topology"].split("x"))
    per_vm = CHIPS_PER_VM[selector["cloud.google.com/gke-tpu-accelerator"]]
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": per_vm}
    assert job["parallelism"] == job["completions"] == chips // per_vm
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    experiment = experiment_of(container["command"])
    assert experiment.data.batch_global == 65_536
    assert experiment.data.batch_global % (replicated["replicas"] * chips * experiment.memory.micro_batches) == 0


def test_jobset_mounts_what_it_names(jobset: dict[str, Any]) -> None:
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    workdir = container["command"][container["command"].index("--workdir") + 1]
    settings = {variable["name"]: variable["value"] for variable in container["env"]}
    folders = [value for name, value in settings.items() if name.endswith(("DATA", "HOME", "DIR"))]
    assert len(folders) == 3
    for path in (workdir, *folders):
        assert path.startswith(f"{mounts['shared']}/")


def test_the_page_names_both_files() -> None:
    page = (SLURM.parent / "README.md").read_text()
    assert all(f"experiments/launch/{path.name}" in page for path in (SLURM, JOBSET))
