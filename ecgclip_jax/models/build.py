"""From an experiment to its towers: pure functions over `params` and `batch_stats`, and the heads that go with them."""

from __future__ import annotations

import jax
from jaxtyping import Array, Bool, Int, Key

from ecgclip_jax.contracts import EcgInput, EcgOutput, RowKeys, TextOutput
from ecgclip_jax.models.bert import Bert
from ecgclip_jax.models.bert_weights import load_bert
from ecgclip_jax.models.functional import PureModule, Tree
from ecgclip_jax.models.resnet1d import ResNet1D, trunk_width
from ecgclip_jax.spec.experiment import Experiment


class Towers:
    """The ECG tower and the text tower of an experiment, as pure functions.

    `ecg_width` and `text_width` are the widths of the pooled outputs, `feature_width` the width of the ECG features.
    """

    def __init__(self, experiment: Experiment, vocab_size: int) -> None:
        ecg, text, signal = experiment.ecg_encoder, experiment.text_encoder, experiment.signal
        self.feature_width = trunk_width(ecg)
        self.ecg_width = ecg.pool_width if ecg.pooling == "attention" else self.feature_width
        self.text_width = text.hidden
        self._text_spec, self._vocab_size = text, vocab_size
        self._ecg = PureModule(lambda rngs: ResNet1D(ecg, leads=len(signal.leads), samples=signal.samples, rngs=rngs))
        self._text = PureModule(lambda rngs: Bert(text, vocab_size, rngs=rngs))

    def init(self, key: Key[Array, ""]) -> tuple[Tree, Tree]:
        """Random `({"ecg": …, "text": …}, {"ecg": …})`: parameters and running statistics, float32.

        Made for `jax.jit(towers.init, out_shardings=…)`: nothing is materialised whole. Weights from files come
        afterwards, from `pretrained`.
        """
        ecg_key, text_key = jax.random.split(key)
        ecg_params, ecg_stats = self._ecg.init(ecg_key)
        text_params, _ = self._text.init(text_key)
        return {"ecg": ecg_params, "text": text_params}, {"ecg": ecg_stats}

    def pretrained(self) -> Tree:
        """The parts of `params` that the experiment takes from files, as numpy arrays: `{"text": …}` or `{}`.

        Put each over the random part of the same name before the first step.

        Raises:
            WeightsError: files missing, or not the weights of the specified encoder.
        """
        if self._text_spec.weights is None:
            return {}
        return {"text": load_bert(self._text_spec, self._vocab_size)}

    def ecg(
        self, params: Tree, stats: Tree, ecg_input: EcgInput, *, train: bool, keys: RowKeys | None = None
    ) -> tuple[EcgOutput, Tree]:
        """The ECG tower on `params["ecg"]`, `batch_stats["ecg"]`; also the statistics after this batch.

        With `train` BatchNorm uses the batch's own statistics and moves the running ones; without, the running ones.
        """
        output, new_stats = self._ecg.apply(params, stats, ecg_input, train=train, keys=keys)
        return output, new_stats

    def text(
        self,
        params: Tree,
        ids: Int[Array, "texts tokens"],
        mask: Bool[Array, "texts tokens"],
        *,
        train: bool,
        keys: RowKeys | None = None,
    ) -> TextOutput:
        """The text tower on `params["text"]`; `keys` (one per text) draw the dropout when `train`."""
        output: TextOutput = self._text.apply(params, {}, ids, mask, train=train, keys=keys)[0]
        return output


def build_towers(experiment: Experiment, vocab_size: int) -> Towers:
    """The towers of `experiment` for a tokenizer of `vocab_size` tokens."""
    return Towers(experiment, vocab_size)
