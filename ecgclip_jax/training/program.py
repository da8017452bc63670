"""The real training step compiled for devices that need not exist, and what its program says about them.

Needs an experiment and a target, no data and no run folder: the state and the batch are shapes. The numbers are those
of the compiled program of one device; a time measured on a device overrules every bound drawn from them.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ecgclip_jax.contracts import Batch, PackedTexts, TextRows, TextTokens, TextVectors
from ecgclip_jax.data.batch import EXTRAS
from ecgclip_jax.data.packing import packed_rows
from ecgclip_jax.parallel.compiler_options import compiler_options
from ecgclip_jax.parallel.hlo import ArrayShape, Program, parse_program
from ecgclip_jax.parallel.hlo_cost import ProgramCost, kept_for_backward, largest_arrays, program_cost
from ecgclip_jax.parallel.host import batch_sharding
from ecgclip_jax.parallel.mesh import MeshError, build_mesh
from ecgclip_jax.parallel.roofline import Roofline, roofline
from ecgclip_jax.parallel.targets import DescribedDevices
from ecgclip_jax.signal.operators import build_operators
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import PACKED_ROW_TOKENS, Experiment
from ecgclip_jax.spec.objectives import ClefSpec, SupervisedSpec, SurvivalSpec
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES
from ecgclip_jax.training.optimizer import frozen_mask
from ecgclip_jax.training.state import TrainingParts, TrainState, abstract_state, build_parts
from ecgclip_jax.training.step import TrainStep

BERT_VOCABULARY = 30_522
"""Tokens of BERT's English WordPiece, for checkpoints that are not at hand (MedCPT's and PubMedBERT's too)."""

_NO_TILES = "Couldn't find output tile sizes"
"""How XLA's error begins where Triton cannot make a product that fusion gave it."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class CompileError(UserError):
    """A program that its compiler cannot make as it was asked to; the message says which option helps."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on one device while a step runs."""

    parameters: int
    optimizer: int
    target: int
    statistics: int
    filters: int
    batch: int
    trained: int
    """Of the parameters, those that are trained: as many bytes of gradients lie among the temporary ones."""
    temporary: int | None
    """Activations, gradients and the kernels' own space; None where the compiler gave up for lack of memory."""
    kept_for_backward: int | None
    """Of the temporary bytes, about so many are activations that the forward pass keeps for the backward pass."""
    outputs: int
    """Results that do not take the place of an argument."""
    program: int
    """The program itself (TPU)."""
    needed: int
    """All together, as the compiler laid it out (tiles padded); from its message where it gave up."""

    @property
    def fixed(self) -> int:
        """What does not grow with the batch."""
        return self.parameters + self.optimizer + self.target + self.statistics + self.filters + self.program


@dataclass(frozen=True)
class CompiledStep:
    """A training step compiled for a target."""

    experiment: Experiment
    described: DescribedDevices
    mesh: Mesh
    memory: MemoryUse
    seconds: float
    """That lowering and compiling took here."""
    text: str | None
    """The compiled program; None where it does not fit and its compiler gave none."""
    cost: ProgramCost | None
    largest: list[tuple[ArrayShape, int, str]]
    compiler_flops: float | None
    """The compiler's own count for one device, loops' bodies once; None where it gives none (CUDA)."""
    compiler_bytes: float | None
    roofline: Roofline | None
    """None for CPU devices, whose peaks are no facts of a target."""
    program: Program | None = None
    """`text`, read."""
    executable: jax.stages.Compiled | None = None
    """What runs, where the devices are real: `executable(operators, state, batch)`, the state is donated."""

    @property
    def options(self) -> dict[str, bool | int]:
        """What its compiler was told beside the program."""
        return compiler_options(self.mesh.devices.flat[0], self.experiment.run.compiler)

    @property
    def memory_limit(self) -> int | None:
        """Bytes of memory that a device of the target has; None for plain CPU devices."""
        facts = self.described.target.facts
        return None if facts is None else facts.memory_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the step fits into a device of the target; None where that is not known."""
        limit = self.memory_limit
        if self.text is None:
            return False
        return None if limit is None or self.described.stand_in else self.memory.needed <= limit

    @property
    def batch_local(self) -> int:
        """ECGs per device."""
        return self.experiment.data.batch_global // self.mesh.size

    @property
    def text_is_trained(self) -> bool:
        """Whether any parameter of the text tower is."""
        return self.experiment.text_is_trained


def vocabulary_size(experiment: Experiment) -> int:
    """Tokens assumed without a tokenizer at hand: what is trained has as many as were asked for, others BERT's."""
    if experiment.text_encoder is None:
        return 0
    tokenizer = experiment.text_encoder.tokenizer
    return tokenizer.vocab_size if tokenizer.source == "train" else BERT_VOCABULARY


def abstract_batch(experiment: Experiment, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch, as `data.pipeline` and `parallel.host.to_global` make it.

    Raises:
        MeshError: a batch (or micro-batch) that does not divide by the devices.
    """
    batch, micro = experiment.data.batch_global, experiment.memory.micro_batches
    if batch % (micro * mesh.size):
        part = f"data.batch_global {batch}" + (f" in {micro} micro-batches" if micro > 1 else "")
        raise MeshError(
            f"{part} must divide by the {mesh.size} devices of the mesh; {batch // (micro * mesh.size)} or "
            f"{batch // (micro * mesh.size) + 1} times {micro * mesh.size} would"
        )
    sharding = batch_sharding(mesh, micro)
    rows = (batch,) if micro == 1 else (micro, batch // micro)

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*rows, *shape), dtype, sharding=sharding)

    texts = experiment.data.texts_per_ecg
    extras = {name: array(jnp.float32, *shape) for name, shape in _extras(experiment).items()}
    fields: dict[str, Any] = {
        "ecg_uv": array(jnp.int16, STORED_SAMPLES, len(STORED_LEADS)),
        "record_row": array(jnp.int32),
        "patient_group": array(jnp.int32),
        "text_group": array(jnp.int32, texts),
        "texts": TextRows(cast("Any", array(jnp.int32, texts))),
        "text_valid": array(jnp.bool_, texts),
        "extras": extras,
        "extras_present": {
            name: jax.ShapeDtypeStruct(value.shape, jnp.bool_, sharding=sharding) for name, value in extras.items()
        },
    }
    if experiment.text_encoder is not None and experiment.caches_text:
        fields["texts"] = TextVectors(cast("Any", array(jnp.float32, texts, experiment.text_encoder.hidden)))
    elif experiment.memory.packed_rows_per_text is not None:
        each = batch * texts // (micro * mesh.size)
        n_rows = mesh.size * packed_rows(each, experiment.memory.packed_rows_per_text)
        shape = (*rows[:-1], n_rows, PACKED_ROW_TOKENS)
        token = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)
        arrays = (cast("Any", array) for array in (token, token, token, array(jnp.int32, texts)))
        fields["texts"] = PackedTexts(*arrays, packs=mesh.size)
    elif experiment.text_encoder is not None:
        tokens = experiment.text_encoder.tokenizer.max_tokens
        ids, mask = array(jnp.int32, texts, tokens), array(jnp.bool_, texts, tokens)
        fields["texts"] = TextTokens(cast("Any", ids), cast("Any", mask))
    return Batch(**fields)


def compile_step(experiment: Experiment, described: DescribedDevices, vocab_size: int) -> CompiledStep:
    """Compiles the training step of `experiment` on a mesh of the described devices.

    Raises:
        UserError: a mesh or a batch that does not fit the number of devices, freezing rules that match nothing, a
            program that the compiler needs another `run.compiler` for.
    """
    return compile_parts(build_parts(experiment, vocab_size), described)


def compile_parts(parts: TrainingParts, described: DescribedDevices) -> CompiledStep:
    """`compile_step` for parts that are built already, or that stand in for some of an experiment's.

    Raises:
        UserError: a mesh or a batch that does not fit the number of devices, a program that the compiler needs another
            `run.compiler` for.
    """
    began_s = time.monotonic()
    experiment = parts.experiment
    mesh = build_mesh(experiment.mesh, described.devices)
    state, batch = abstract_state(parts, mesh), abstract_batch(experiment, mesh)
    lowered = TrainStep(parts, mesh).lower(state, batch)
    compiled, needed = compile_lowered(lowered)
    seconds = time.monotonic() - began_s
    if compiled is None:
        memory = _memory_use(parts, mesh, state, batch, None, None, needed)
        return CompiledStep(experiment, described, mesh, memory, seconds, None, None, [], None, None, None)
    text = compiled.as_text() or ""
    program = parse_program(text)
    tpu = described.devices[0].platform == "tpu"
    cost = program_cost(program, n_devices=mesh.size, on_chip_spaces=tpu)
    facts = None if described.stand_in else described.target.facts
    counted = compiled.cost_analysis() or {}
    return CompiledStep(
        experiment,
        described,
        mesh,
        _memory_use(parts, mesh, state, batch, compiled, program, needed),
        seconds,
        text,
        cost,
        largest_arrays(program, 8),
        counted.get("flops"),
        counted.get("bytes accessed"),
        None if facts is None else roofline(cost, facts, [device.process_index for device in mesh.devices.flat]),
        program,
        compiled,
    )


def _extras(experiment: Experiment) -> dict[str, tuple[int, ...]]:
    """What travels beside ECG and text, by the objective that reads it: shape of one record's value."""
    found: dict[str, tuple[int, ...]] = dict.fromkeys(EXTRAS, ())
    objective = experiment.objective
    if isinstance(objective, ClefSpec):
        found |= {"risk": (), "risk_completeness": ()}
    if isinstance(objective, SurvivalSpec):
        found |= {"follow_up_years": (), "event": ()}
    if isinstance(objective, SupervisedSpec):
        sizes = {"labels": len(objective.labels), "measurements": len(objective.measurements)}
        found |= {name: (size,) for name, size in sizes.items() if size}
    return found


def compile_lowered(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, int]:
    """The program, or None and the bytes that it would need: the TPU compiler refuses what does not fit.

    Raises:
        CompileError: what another `run.compiler` makes.
    """
    try:
        return lowered.compile(), 0
    except jax.errors.JaxRuntimeError as error:
        if _NO_TILES in str(error):
            raise CompileError(
                "XLA for GPUs finds no tiles for a matrix product of this step: set run.compiler to library_products, "
                f"which leaves products to cuBLAS. Its own words: {str(error)[:200]} …"
            ) from error
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, bytes_refused(str(error))


def bytes_refused(message: str) -> int:
    """Bytes that a compiler wanted when it ran out of memory, from its message; 0 where it names none."""
    found = re.search(r"Used ([\d.]+)([KMGT]) of|\(([\d.]+)([KMGT])\) exceeds", message)
    if found is None:
        return 0
    number, unit = (found.group(1), found.group(2)) if found.group(1) else (found.group(3), found.group(4))
    return int(float(number) * _UNITS[unit])


def _memory_use(
    parts: TrainingParts,
    mesh: Mesh,
    state: TrainState,
    batch: Batch,
    compiled: jax.stages.Compiled | None,
    program: Program | None,
    needed: int,
) -> MemoryUse:
    frozen = frozen_mask(parts.experiment.optimizer, state.params)
    trained = jax.tree.map(lambda leaf, is_frozen: None if is_frozen else leaf, state.params, frozen)
    analysis = compiled.memory_analysis() if compiled is not None else None
    outputs = temporary = code = 0
    if analysis is not None:
        temporary, code = analysis.temp_size_in_bytes, analysis.generated_code_size_in_bytes
        outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        needed = analysis.argument_size_in_bytes + temporary + outputs + code
    return MemoryUse(
        parameters=_bytes_per_device(state.params),
        optimizer=_bytes_per_device(state.opt_state),
        target=_bytes_per_device((state.target, state.target_stats)),
        statistics=_bytes_per_device(state.batch_stats),
        filters=sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(build_operators(parts.experiment.signal))),
        batch=_bytes_per_device(batch),
        trained=_bytes_per_device(trained),
        temporary=None if analysis is None else temporary,
        kept_for_backward=None if program is None else kept_for_backward(program),
        outputs=outputs,
        program=code,
        needed=needed,
    )


def _bytes_per_device(tree: Any) -> int:
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = leaf.sharding
        assert isinstance(sharding, NamedSharding)
        total += int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
    return total
