"""`ecgclip compile FILE --target …`: the training step compiled for hardware that need not be there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from ecgclip_jax.cli.options import parse_with_overrides, table_console
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import MeshSpec
from ecgclip_jax.spec.files import load_experiment


@dataclass
class CompileArguments:
    """Compile the real training step for hardware you do not own, and see per device what it needs and moves.

    The real TPU and CUDA compilers run on a machine without the hardware: `pip install -e '.[tpu]'` or `'.[cuda]'`
    (in an environment of its own; several GB for CUDA). Where the target's compiler is missing, plain CPU devices
    stand in: state, batch and collectives hold, temporary memory and kernels are the CPU's, and no bound is drawn.

    Needs no data and no run folder. Bounds assume the vendors' peak figures: no run is faster, real ones are slower.

    Targets: cpu, cpu:8 | a100, h100, h200 (one GPU), h200:8 (one host), h200:64 (8 hosts) | v5e:1x1 … v5e:16x16,
    v5p:2x2x1 … v5p:8x8x8, v6e:1x1 … v6e:16x16 (a slice by its shape).

    On a slice:   ecgclip compile experiments/ecgclip.py --variant r34 --target v6e:16x16 --data.batch-global 65536

    On 64 GPUs:   ecgclip compile experiments/ecgclip.py --target h200:64 --mesh data=16,fsdp=4

    To keep it:   ecgclip compile experiments/demo.py --target cpu:8 --hlo demo.hlo --json demo.json
    """

    file: tyro.conf.Positional[Path]
    """Experiment file, for example experiments/ecgclip.py."""
    target: str
    """What to compile for; see above."""
    variant: str | None = None
    """A variant of the file; without it the first one."""
    mesh: str | None = None
    """Overrides the experiment's mesh, for example data=64,fsdp=4; an axis that is not named takes what is left."""
    vocab_size: int | None = None
    """Tokens of the text tower; by default what the experiment would train, or BERT's 30522 for a checkpoint's
    tokenizer. A checkpoint itself is not read: the text tower has the experiment's own sizes."""
    hlo: Path | None = None
    """Keep the compiled program's text here."""
    json: Path | None = None
    """Keep all figures here, as JSON."""


def main(words: list[str]) -> int:
    """Compiles and prints the tables; exit code 1 if the step does not fit into the target's memory."""
    arguments, overrides = parse_with_overrides(CompileArguments, words, "compile")
    experiment = load_experiment(arguments.file, arguments.variant, [*overrides, *mesh_overrides(arguments.mesh)])
    from ecgclip_jax.cli.program_tables import print_step, step_facts
    from ecgclip_jax.parallel.targets import describe, parse_target
    from ecgclip_jax.training.program import compile_step, vocabulary_size

    target = parse_target(arguments.target)
    for path in (arguments.hlo, arguments.json):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"no folder {path.parent} to write {path.name} into; make it first")
    vocab_size = arguments.vocab_size or vocabulary_size(experiment)
    console = table_console()
    with console.status(f"compiling {experiment.name} for {target.text} (minutes, for a pod)"):
        step = compile_step(experiment, describe(target), vocab_size)
    print_step(step, vocab_size, console)
    if arguments.hlo is not None and step.text is not None:
        arguments.hlo.write_text(step.text, encoding="utf-8")
        console.print(f"program text: {arguments.hlo}", highlight=False)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(step_facts(step, vocab_size), indent=1) + "\n", encoding="utf-8")
        console.print(f"figures: {arguments.json}", highlight=False)
    return 1 if step.fits is False else 0


def mesh_overrides(text: str | None) -> list[str]:
    """`data=64,fsdp=4` as the overrides `--mesh.data 64 --mesh.fsdp 4`.

    Raises:
        UserError: an axis that no mesh has, or a size that is no number.
    """
    if text is None:
        return []
    axes = tuple(MeshSpec.model_fields)
    sizes = {"data": "-1"}
    for part in text.split(","):
        axis, _, size = part.strip().partition("=")
        if axis not in axes:
            raise UserError(f"--mesh {text}: the mesh has no axis {axis!r}; it has {', '.join(axes)} (data=64,fsdp=4)")
        if not size.isdigit() or not int(size):
            raise UserError(f"--mesh {text}: axis {axis} needs a number of devices, found {size!r}")
        sizes[axis] = size
    return [word for axis, size in sizes.items() for word in (f"--mesh.{axis}", size)]
