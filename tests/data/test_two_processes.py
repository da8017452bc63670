"""Two real processes of two devices each: what they read and place makes up the global batches of one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.data.targets import target_extras
from ecgclip_jax.spec.experiment import DataSpec, Source
from ecgclip_jax.spec.objectives import SupervisedSpec
from tfds_builders.common.schema import Record

NAN = float("nan")
PROGRAM = """
import sys
import jax
import numpy as np
from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.parallel.host import process_rows, replicated, to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.data.targets import target_extras
from ecgclip_jax.spec.experiment import DataSpec, MeshSpec, Source
from ecgclip_jax.spec.objectives import SupervisedSpec

data_dir, address, process, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
jax.distributed.initialize(address, num_processes=2, process_id=process)
mesh = build_mesh(MeshSpec(fsdp=2))
index = build_index(DataSpec(sources=(Source(cohort="tiny"),), texts_per_ecg=2), data_dir, seed=1)
targets = target_extras(SupervisedSpec(measurements=("age_years", "weight_kg")), index)
pipeline = TrainPipeline(index, None, targets, max_tokens=8, batch_global=16, process_index=process, process_count=2)
assert process_rows(mesh, 16) == range(8 * process, 8 * process + 8)
def parts(batch):
    return {
        "rows": batch.record_row,
        "first_uv": batch.ecg_uv[:, 0, 0],
        "texts": batch.texts.index,
        "valid": batch.text_valid,
        "group": batch.text_group,
        "measurements": batch.extras["measurements"],
        "known": batch.extras_present["measurements"],
    }
whole = jax.jit(parts, out_shardings=replicated(mesh))
batches = pipeline.batches(2)
seen = [jax.device_get(whole(to_global(next(batches), mesh))) for _ in range(3)]
batches.close()
np.savez(out, **{name: [s[name] for s in seen] for name in seen[0]})
"""


def record(number: int) -> Record:
    report = ". ".join(f"Statement {k}" for k in range(number % 4))
    return tiny_record(
        number, report=f"Sinus rhythm. {report}", age_years=30.0 + number, weight_kg=(60.0, NAN, 70.0)[number % 3]
    )


def test_two_processes_place_the_batches_of_one(tmp_path: Path) -> None:
    """Waveforms, drawn statements and targets."""
    write_cohort(tmp_path, {"train": [record(n) for n in range(50)]})
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    running = [
        subprocess.Popen(
            [sys.executable, tmp_path / "program.py", tmp_path, address, str(p), tmp_path / f"{p}.npz"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], errors
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),), texts_per_ecg=2), tmp_path, seed=1)
    targets = target_extras(SupervisedSpec(measurements=("age_years", "weight_kg")), index)
    batches = TrainPipeline(index, None, targets, max_tokens=8, batch_global=16).batches(2)
    expected = list(islice(batches, 3))
    batches.close()
    for p in range(2):
        found = np.load(tmp_path / f"{p}.npz")
        np.testing.assert_array_equal(found["rows"], [b.record_row for b in expected])
        np.testing.assert_array_equal(found["first_uv"], [b.ecg_uv[:, 0, 0] for b in expected])
        np.testing.assert_array_equal(found["texts"], [b.texts.index for b in expected])  # type: ignore[union-attr]
        np.testing.assert_array_equal(found["valid"], [b.text_valid for b in expected])
        np.testing.assert_array_equal(found["group"], [b.text_group for b in expected])
        np.testing.assert_array_equal(found["measurements"], [b.extras["measurements"] for b in expected])
        np.testing.assert_array_equal(found["known"], [b.extras_present["measurements"] for b in expected])
    assert 0 < found["valid"].mean() < 1
    assert 0 < found["known"].mean() < 1
