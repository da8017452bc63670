"""From an experiment to its towers: pure functions over `params` and `batch_stats`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Int, Key

from ecgclip_jax.contracts import EcgInput, EcgOutput, PackedTexts, RowKeys, TextOutput
from ecgclip_jax.models.bert import Bert
from ecgclip_jax.models.bert_weights import load_bert
from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.models.layers import BLOCK_OUTPUT, CONVOLUTION_OUTPUT, NORM_MOMENTS, Rngs
from ecgclip_jax.models.resnet1d import ResNet1D
from ecgclip_jax.models.vit1d import ViT1D
from ecgclip_jax.spec.encoders import EcgEncoderSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import Experiment

ECG_TOWER, TEXT_TOWER = "ecg_tower", "text_tower"
"""Names under which the towers' operations stand in a compiled program (`ecgclip profile`)."""
KEPT_OF_ECG: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "convolutions": (CONVOLUTION_OUTPUT, NORM_MOMENTS, BLOCK_OUTPUT),
    "blocks": (NORM_MOMENTS, BLOCK_OUTPUT),
}
"""What the backward pass does not compute again, for each rematerialisation policy of the ECG tower (`MemorySpec`).

Moments are small, and computing them again would read every map once more.
"""


class Towers:
    """The ECG tower and, unless the experiment reads no text, the text tower, as pure functions.

    `ecg_width` and `text_width` are the widths of the pooled outputs (`text_width` 0 without a text tower),
    `feature_width` the width of the ECG features.
    """

    def __init__(self, experiment: Experiment, vocab_size: int) -> None:
        ecg, text, memory = experiment.ecg_encoder, experiment.text_encoder, experiment.memory
        leads, samples = experiment.encoder_leads, experiment.signal.samples
        # BatchNorm's groups lie within micro-batches, which is all that the tower sees at a time.
        ecg = ecg.replace({"norm_groups": ecg.norm_groups // memory.micro_batches})
        self.feature_width, self.ecg_width = ecg.feature_width, ecg.pooled_width
        self.text_width = 0 if text is None else text.hidden
        self._text_spec, self._vocab_size, self._remat_text = text, vocab_size, memory.text_remat == "layers"
        self._make_ecg = partial(ecg_tower, ecg, leads=leads, samples=samples, kept=KEPT_OF_ECG[memory.ecg_remat])
        self._ecg = PureModule(lambda rngs: self._make_ecg(rngs=rngs))
        # A residual network keeps what it is told to by itself, between its blocks.
        self._remat_ecg = isinstance(ecg, ViT1DSpec) and memory.ecg_remat == "blocks"
        self._text = None if text is None else PureModule(lambda rngs: Bert(text, vocab_size, rngs=rngs))

    def init(self, key: Key[Array, ""]) -> tuple[Tree, Tree]:
        """Random `({"ecg": …, "text": …}, {"ecg": …})`: parameters and running statistics, float32.

        Made for `jax.jit(towers.init, out_shardings=…)`: nothing is materialised whole. Weights from files come
        afterwards, from `pretrained`.
        """
        ecg_key, text_key = jax.random.split(key)
        ecg_params, ecg_stats = self._ecg.init(ecg_key)
        params = {"ecg": ecg_params}
        if self._text is not None:
            params["text"], _ = self._text.init(text_key)
        return params, {"ecg": ecg_stats}

    def pretrained(self) -> Tree:
        """The parts of `params` that the experiment takes from files, as numpy arrays: `{"text": …}` or `{}`.

        Put each over the random part of the same name before the first step.

        Raises:
            WeightsError: files missing, or not the weights of the specified encoder.
        """
        if self._text_spec is None or self._text_spec.weights is None:
            return {}
        return {"text": load_bert(self._text_spec, self._vocab_size)}

    @jax.named_scope(ECG_TOWER)
    def ecg(
        self, params: Tree, stats: Tree, ecg_input: EcgInput, *, train: bool, keys: RowKeys | None = None
    ) -> tuple[EcgOutput, Tree]:
        """The ECG tower on `params["ecg"]`, `batch_stats["ecg"]`; also the statistics after this batch.

        With `train` BatchNorm uses the batch's own statistics and moves the running ones; without, the running ones.
        """
        apply = _keeping_blocks(partial(self._ecg.apply, train=train), self._remat_ecg)
        output, new_stats = apply(params, stats, ecg_input, keys=keys)
        return output, new_stats

    def folded_ecg(self, params: Tree, ecg_input: EcgInput) -> EcgOutput:
        """`ecg` without `train`, on `models.folding.fold_norms(params["ecg"], batch_stats["ecg"])`."""
        output: EcgOutput = self._folded_ecg.apply(params, {}, ecg_input, train=False)[0]
        return output

    @cached_property
    def _folded_ecg(self) -> PureModule:
        return PureModule(lambda rngs: self._make_ecg(rngs=rngs, folded=True))

    @jax.named_scope(TEXT_TOWER)
    def text(
        self,
        params: Tree,
        ids: Int[Array, "texts tokens"],
        mask: Bool[Array, "texts tokens"],
        *,
        train: bool,
        keys: RowKeys | None = None,
    ) -> TextOutput:
        """The text tower on `params["text"]`; `keys` (one per text) draw the dropout when `train`.

        Raises:
            ValueError: an experiment without text tower.
        """
        if self._text is None:
            raise ValueError("this experiment has no text tower")
        apply = partial(self._text.apply, train=train)
        output: TextOutput = _keeping_blocks(apply, self._remat_text)(params, {}, ids, mask, keys=keys)[0]
        return output

    @jax.named_scope(TEXT_TOWER)
    def packed_text(self, params: Tree, texts: PackedTexts) -> TextOutput:
        """The text tower on texts that share rows: the outputs that `text` gives of each by itself, without dropout.

        Raises:
            ValueError: an experiment without text tower.
        """
        if self._text is None:
            raise ValueError("this experiment has no text tower")
        apply = _keeping_blocks(partial(self._text.apply, train=False), self._remat_text)
        output: TextOutput = apply(params, {}, texts.ids, texts.text >= 0, packed=texts)[0]
        return output


def _keeping_blocks(apply: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """`apply` whose backward pass, with `remat`, keeps the outputs of blocks or layers and computes the rest again."""
    if not remat:
        return apply
    return jax.checkpoint(apply, policy=jax.checkpoint_policies.save_only_these_names(BLOCK_OUTPUT))


def ecg_tower(
    spec: EcgEncoderSpec,
    *,
    leads: int,
    samples: int,
    rngs: Rngs,
    folded: bool = False,
    kept: tuple[str, ...] | None = None,
) -> nnx.Module:
    """The module of an ECG encoder; `folded` and `kept` are about residual networks (`ResNet1D`)."""
    if isinstance(spec, ViT1DSpec):
        return ViT1D(spec, leads=leads, samples=samples, rngs=rngs)
    return ResNet1D(spec, leads=leads, samples=samples, rngs=rngs, folded=folded, kept=kept)


def build_towers(experiment: Experiment, vocab_size: int) -> Towers:
    """The towers of `experiment` for a tokenizer of `vocab_size` tokens."""
    return Towers(experiment, vocab_size)
