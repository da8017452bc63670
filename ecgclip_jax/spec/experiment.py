"""An experiment as one frozen value: data, input, towers, objective, optimiser, run, evaluation."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ecgclip_jax.spec.base import Spec
from ecgclip_jax.spec.encoders import BertSpec, EcgEncoderSpec, ResNet1DSpec, ViT1DSpec
from ecgclip_jax.spec.objectives import FgClepSpec, InfoNCESpec, ObjectiveSpec, SigmoidSpec
from ecgclip_jax.spec.signal import AugmentSpec, SignalSpec, ViewSpec
from ecgclip_jax.spec.statements import TRAINING_KINDS, StatementKind

PACKED_ROW_TOKENS = 128
"""Tokens of a row in which several texts are packed."""


class Source(Spec):
    """One prepared cohort, or a part of it."""

    cohort: str
    """Name of a prepared dataset in the data directory (`ecgclip prepare NAME`)."""
    version: str | None = None
    """None takes the newest version found; the resolved one is recorded in the run."""
    split: str = "train"
    weight: float = Field(1.0, gt=0)
    """Relative number of draws of each record; equal weights draw every record once an epoch."""


class DataSpec(Spec):
    """Which records are read, in which batches, and how."""

    sources: tuple[Source, ...] = Field(min_length=1)
    batch_global: int = Field(64, ge=2)
    report_field: Literal["report_clean", "report_raw"] = "report_clean"
    windows: Literal["first", "all"] = "first"
    """Of recordings longer than 10 s."""
    statement_kinds: tuple[StatementKind, ...] = Field(TRAINING_KINDS, min_length=1)
    """Which statements of a report the text tower reads; the others (by default comparisons with other tracings,
    history, demographics and workflow) are taken out. All kinds together leave reports as they are, as MERL does."""
    min_report_words: int = Field(1, ge=0)
    """Records whose report has fewer words of these kinds are left out of training (counted in the index)."""
    statement_keep_probability: float = Field(1.0, gt=0, le=1)
    """Chance of each statement of a report to reach the text tower in a step; one at least does, in random order.
    1 leaves reports whole, as MERL and ECGCLIP do. Below 1 is our choice: a zero-shot prompt is a single statement."""
    texts_per_ecg: int = Field(1, ge=1)
    """Texts of each ECG in a step. Above 1 they are statements of its report, drawn without repetition."""
    null_world: Literal["none", "shuffled_reports"] = "none"
    """`shuffled_reports` permutes reports between patients: every honest claim must vanish."""
    workers: int = Field(0, ge=0)
    prefetch_batches: int = Field(4, ge=1)
    input: Literal["host", "resident", "resident_8_leads"] = "host"
    """Where waveforms wait: in files, read ahead and sent batch by batch; or all of them in the devices' memory, spread
    over the mesh, so that only row numbers are sent. `resident_8_leads` leaves out III, aVR, aVL and aVF, which are
    derived again; an error where that would change a sample that the encoder sees. The batches are the same."""
    shuffle_shards: int = Field(1, ge=1)
    """Each batch takes equally many records of so many fixed parts of the data. Resident input needs a multiple of the
    number of devices, each of which then holds all that its rows are made of."""

    @model_validator(mode="after")
    def _one_way_to_draw(self) -> DataSpec:
        if self.texts_per_ecg > 1 and self.statement_keep_probability < 1:
            raise ValueError(
                "statement_keep_probability thins whole reports; with texts_per_ecg above 1 each text is a single "
                "statement, so leave it at 1"
            )
        return self


class OptimizerSpec(Spec):
    """AdamW with a schedule; freezing and decay are decided by path rules over the whole parameter tree."""

    peak_lr: float = Field(1e-3, gt=0)
    end_lr: float = Field(1e-8, ge=0)
    schedule: Literal["constant", "cosine", "warm_restarts"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    restart_steps: int = Field(5000, ge=1)
    """Period of `warm_restarts` (PyTorch's CosineAnnealingWarmRestarts with T_mult = 1)."""
    weight_decay: float = Field(1e-8, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    clip_norm: float | None = None
    decay_all: bool = False
    """True decays biases, norms and scalars too, as PyTorch's plain AdamW does."""
    frozen: tuple[str, ...] = ()
    """Regular expressions of parameter paths that stay as they are (for example `^text/`)."""


class MeshSpec(Spec):
    """The device mesh; -1 takes what is left. The mesh never changes the result."""

    data: int = -1
    fsdp: int = Field(1, ge=1)

    @field_validator("data")
    @classmethod
    def _positive_or_rest(cls, value: int) -> int:
        if value == 0 or value < -1:
            raise ValueError(f"mesh.data must be -1 (all devices that are left) or at least 1, got {value}")
        return value


class StartSpec(Spec):
    """Weights of another run in place of random ones: for fine-tuning, and for objectives that come in stages.

    What that run has seen counts as seen by this one, and its access class is inherited.
    """

    run: str
    """Run folder; its input, leads and encoder must be this experiment's."""
    step: int | None = None
    """Checkpoint; None takes the newest."""
    parts: tuple[Literal["ecg", "text", "objective"], ...] = Field(("ecg",), min_length=1)
    """Towers to take over, and what both objectives have of the same name and shape. `text` needs that run's tokenizer
    (`text_encoder.tokenizer.source` = RUN/tokenizer)."""


class MemorySpec(Spec):
    """Time for memory: settings that change neither the loss nor, but for rounding, its gradient."""

    micro_batches: int = Field(1, ge=1)
    """The towers see the global batch in so many parts (two passes, embeddings cached between); the loss sees all."""
    ecg_remat: Literal["none", "convolutions", "blocks"] = "none"
    """What the backward pass keeps of the ECG tower: everything; outputs of residual blocks, and of their convolutions
    but the last of each; or outputs of blocks alone."""
    text_remat: Literal["none", "layers"] = "none"
    """What the backward pass keeps of the text tower: everything, or outputs of layers."""
    packed_rows_per_text: float | None = Field(None, ge=1 / 64, le=1)
    """A trained text tower reads texts packed into rows of 128 tokens, so many rows for each text: 0.25 gives them 32
    tokens on average. Texts that find no room are cut short, the longest first, and counted. None: a row for each."""
    text_cache: Literal["off", "auto", "on"] = "auto"
    """Each distinct text goes through a frozen text tower once, before the first step, instead of in every step.
    `auto` where that changes nothing; `on` is an error where it would."""
    text_cache_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the tower's outputs are kept; `bfloat16` halves the file, and loses nothing of a bfloat16 tower that pools
    by `pooler` or `cls`."""
    text_cache_folder: str | None = None
    """Where caches are kept and found by other runs. None: the run folder, above access class `open` the data
    directory, so that a run folder which travels holds nothing of single reports."""


CompilerSet = Literal["default", "overlap", "library_products"]


class RunSpec(Spec):
    """Length of a run, what it writes and when."""

    steps: int = Field(1000, ge=1)
    log_every: int = Field(10, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    evaluate_every: int = Field(0, ge=0)
    """In-run validation every so many steps; 0 = never."""
    compiler: CompilerSet = "default"
    """Named options of the compiler, see `parallel/compiler_options.py`; `overlap` for several accelerators,
    `library_products` where XLA for GPUs finds no tiles for a matrix product."""


class EvaluationSpec(Spec):
    """What `ecgclip evaluate` does by default with this experiment's checkpoints."""

    train: tuple[Source, ...] = ()
    """Where the linear probe learns; its settings are chosen on `validation`, never on `test`."""
    validation: tuple[Source, ...] = ()
    test: tuple[Source, ...] = ()
    label_vocabulary: str = "synthetic"
    """Vocabulary of the label codes that are mapped to concepts."""
    prompt_language: Literal["en", "de"] = "en"
    min_test_positives: int = Field(1, ge=1)
    """Labels with fewer positives among the test patients are listed, not scored."""
    macro_min_labels: int = Field(3, ge=1)
    """A macro mean over fewer defined labels is not printed."""
    bootstrap_replicates: int = Field(1000, ge=10)
    untrained_baseline: bool = True


class Experiment(Spec):
    """Everything that determines a run; the resolved value and its fingerprint go into every checkpoint."""

    name: str
    summary: str
    seed: int = Field(0, ge=0)
    data: DataSpec
    signal: SignalSpec
    augment: AugmentSpec = AugmentSpec()
    view: ViewSpec = ViewSpec()
    ecg_encoder: EcgEncoderSpec = ResNet1DSpec()
    text_encoder: BertSpec | None = BertSpec()
    """None for an objective that reads no text."""
    objective: ObjectiveSpec = InfoNCESpec()
    start: StartSpec | None = None
    optimizer: OptimizerSpec = OptimizerSpec()
    run: RunSpec = RunSpec()
    memory: MemorySpec = MemorySpec()
    mesh: MeshSpec = MeshSpec()
    evaluation: EvaluationSpec = EvaluationSpec()

    @property
    def encoder_leads(self) -> int:
        """Leads that the ECG encoder takes."""
        return 1 if self.view.single_lead else len(self.signal.leads)

    @property
    def text_is_trained(self) -> bool:
        """Whether any parameter of the text tower is."""
        return self.text_encoder is not None and not any(re.search(p, "text/") for p in self.optimizer.frozen)

    @property
    def caches_text(self) -> bool:
        """Whether steps take the text tower's outputs from a cache."""
        return self.memory.text_cache != "off" and self.text_cache_obstacle is None

    @property
    def text_cache_obstacle(self) -> str | None:
        """Why the text tower must run in every step; None where its outputs can be kept."""
        if self.text_encoder is None:
            return f"objective {self.objective.kind} reads no text"
        if self.text_is_trained:
            return "the text tower is trained (optimizer.frozen must hold '^text/')"
        if self.text_encoder.dropout > 0:
            return (
                f"text_encoder.dropout {self.text_encoder.dropout} draws the tower's outputs anew in every step; 0 "
                "leaves that noise out"
            )
        if self.data.statement_keep_probability < 1:
            return (
                "data.statement_keep_probability below 1 draws each report anew in every step; set it to 1, or draw "
                "single statements with data.texts_per_ecg above 1"
            )
        return None

    @model_validator(mode="after")
    def _batch_divides(self) -> Experiment:
        batch, groups, micro = self.data.batch_global, self.ecg_encoder.norm_groups, self.memory.micro_batches
        if batch % groups:
            raise ValueError(f"ecg_encoder.norm_groups {groups} must divide data.batch_global {batch}")
        if batch // groups < 2:
            raise ValueError("each BatchNorm group needs at least 2 ECGs")
        if batch % micro:
            raise ValueError(f"memory.micro_batches {micro} must divide data.batch_global {batch}")
        if batch // micro % self.data.shuffle_shards:
            raise ValueError(
                f"data.shuffle_shards {self.data.shuffle_shards} must divide "
                f"{'a micro-batch' if micro > 1 else 'data.batch_global'} of {batch // micro}"
            )
        if groups % micro:
            raise ValueError(
                f"memory.micro_batches {micro} needs BatchNorm groups that lie within a micro-batch: make "
                f"ecg_encoder.norm_groups ({groups}) a multiple of {micro}"
            )
        if self.mesh.data > 0 and batch // micro % (self.mesh.data * self.mesh.fsdp):
            part = f"data.batch_global {batch}" + (f" / memory.micro_batches {micro}" if micro > 1 else "")
            raise ValueError(f"{part} must divide by the mesh's {self.mesh.data} x {self.mesh.fsdp} devices")
        return self

    @model_validator(mode="after")
    def _steps(self) -> Experiment:
        if self.optimizer.warmup_steps >= self.run.steps:
            raise ValueError(
                f"optimizer.warmup_steps {self.optimizer.warmup_steps} must be below run.steps {self.run.steps}"
            )
        return self

    @model_validator(mode="after")
    def _towers_fit_objective(self) -> Experiment:
        kind = self.objective.kind
        if self.objective.reads_text and self.text_encoder is None:
            raise ValueError(f"objective {kind} reads reports: it needs a text_encoder")
        if not self.objective.reads_text and self.text_encoder is not None:
            raise ValueError(f"objective {kind} reads no reports: set text_encoder to None")
        if self.data.texts_per_ecg > 1 and not self.objective.reads_text:
            raise ValueError(f"objective {kind} reads no reports: leave data.texts_per_ecg at 1")
        if self.data.null_world == "shuffled_reports" and not self.objective.reads_text:
            raise ValueError(f"objective {kind} reads no reports: with shuffled ones it would learn the same")
        if self.memory.text_remat != "none" and self.text_encoder is None:
            raise ValueError("memory.text_remat needs a text_encoder")
        if self.memory.packed_rows_per_text is not None:
            self._require_packable()
        if self.memory.text_cache == "on" and self.text_cache_obstacle is not None:
            raise ValueError(f"memory.text_cache 'on': {self.text_cache_obstacle}")
        return self

    def _require_packable(self) -> None:
        setting, text = f"memory.packed_rows_per_text {self.memory.packed_rows_per_text}", self.text_encoder
        if text is None or self.caches_text:
            raise ValueError(f"{setting}: no text goes through the text tower in a step; leave it None")
        if text.dropout > 0:
            raise ValueError(
                f"{setting} needs text_encoder.dropout 0, found {text.dropout}: draws would depend on the packing"
            )
        if text.tokenizer.max_tokens > PACKED_ROW_TOKENS:
            raise ValueError(
                f"{setting} needs text_encoder.tokenizer.max_tokens of at most {PACKED_ROW_TOKENS}, found "
                f"{text.tokenizer.max_tokens}"
            )

    @model_validator(mode="after")
    def _shared_space(self) -> Experiment:
        objective, width = self.objective, self.ecg_encoder.pooled_width
        if not isinstance(objective, InfoNCESpec | SigmoidSpec | FgClepSpec) or objective.ecg_head.kind != "none":
            return self
        if isinstance(objective, FgClepSpec) and objective.tag_attention:  # which has a head of its own
            return self
        if width != objective.embedding_dim:
            raise ValueError(
                f"objective.ecg_head is 'none', so what the ECG tower pools (width {width}: ecg_encoder.pool_width, or "
                f"the trunk's) must equal objective.embedding_dim {objective.embedding_dim}"
            )
        return self

    @model_validator(mode="after")
    def _transformer(self) -> Experiment:
        encoder, samples = self.ecg_encoder, self.signal.samples
        if not isinstance(encoder, ViT1DSpec):
            return self
        if samples % encoder.patch_samples:
            raise ValueError(
                f"ecg_encoder.patch_samples {encoder.patch_samples} must divide signal.samples {samples}: what is left "
                "over would never be seen"
            )
        if self.memory.ecg_remat == "convolutions":
            raise ValueError("memory.ecg_remat 'convolutions': a transformer has none; use 'blocks'")
        return self

    @model_validator(mode="after")
    def _single_lead(self) -> Experiment:
        if not self.view.single_lead:
            return self
        if self.view.inference_lead not in self.signal.leads:
            raise ValueError(f"view.inference_lead {self.view.inference_lead} is not among signal.leads")
        if self.signal.normalisation not in ("none", "zscore_lead"):
            raise ValueError(
                f"view.single_lead with signal.normalisation {self.signal.normalisation!r}: the other leads would "
                "decide the scale of the one that is seen; use 'zscore_lead' or 'none'"
            )
        return self
