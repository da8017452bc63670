"""BERT-family checkpoints: read `config.json` and `model.safetensors` of a folder, map the names, check the shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ecgclip_jax.models.functional import Tree
from ecgclip_jax.spec.encoders import BertSpec
from ecgclip_jax.spec.errors import UserError

SIZES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "norm_epsilon": "layer_norm_eps",
}
"""Field of `BertSpec` → key of a checkpoint's `config.json`."""

_MODULES = {
    "embeddings.word_embeddings": "embeddings/word",
    "embeddings.position_embeddings": "embeddings/position",
    "embeddings.token_type_embeddings": "embeddings/token_type",
    "embeddings.LayerNorm": "embeddings/norm",
    "pooler.dense": "pooler",
}
_LAYER_MODULES = {
    "attention.self.query": "attention/query",
    "attention.self.key": "attention/key",
    "attention.self.value": "attention/value",
    "attention.output.dense": "attention/out",
    "attention.output.LayerNorm": "attention/norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
_NOT_OURS = re.compile(r"^cls\.|(^|\.)embeddings\.position_ids$")
"""Pre-training heads and a buffer of position numbers, which some checkpoints carry along."""


class WeightsError(UserError):
    """A checkpoint that cannot be used as the specified encoder; the message says what to do."""


def resolve_bert(spec: BertSpec) -> BertSpec:
    """`spec` with the sizes that the checkpoint named in `spec.weights` has; unchanged when it names none.

    Do this once, before the resolved experiment is saved: the run then describes itself without the checkpoint.

    Raises:
        WeightsError: no such checkpoint, or not a BERT with the exact GELU and absolute positions.
    """
    if spec.weights is None:
        return spec
    config = _read_config(checkpoint_folder(spec.weights))
    sizes = {field: config[key] for field, key in SIZES.items() if key in config}
    return BertSpec.model_validate(spec.model_dump() | sizes)


def load_bert(spec: BertSpec, vocab_size: int) -> Tree:
    """Parameters of the text tower from `spec.weights`, as a nested dictionary of float32 numpy arrays.

    A checkpoint may hold more words than the tokenizer (padded tables); rows that no token names are left out.

    Raises:
        WeightsError: the checkpoint is not the specified encoder (sizes, missing or unknown tensors, vocabulary).
    """
    if spec.weights is None:
        raise WeightsError("text_encoder.weights is not set: there is no checkpoint to load")
    folder = checkpoint_folder(spec.weights)
    _check_sizes(spec, folder)
    tensors = {_without_prefix(name): value for name, value in _read_tensors(folder).items()}
    wanted = tensor_names(spec)
    _check_names(spec, set(tensors), set(wanted.values()), folder)
    params: Tree = {}
    for path, name in wanted.items():
        value = tensors[name].astype(np.float32)
        _insert(params, path, value.T if path.endswith("/kernel") else value)
    params["embeddings"]["word"]["embedding"] = _cut_vocabulary(
        params["embeddings"]["word"]["embedding"], vocab_size, folder
    )
    return params


def checkpoint_folder(source: str) -> Path:
    """The local folder of a checkpoint given as a path or a Hugging Face name (taken from the cache or downloaded).

    Raises:
        WeightsError: neither a folder nor a name that can be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=["config.json", "model.safetensors"]))
    except Exception as error:
        raise WeightsError(
            f"text_encoder.weights: {source!r} is no folder here and could not be fetched as a Hugging Face model "
            f"({type(error).__name__}: {error}); give a folder with config.json and model.safetensors"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: a checkpoint folder holds config.json and model.safetensors")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}): is the checkpoint complete?") from error
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise WeightsError(f"{path}: {key} is {config[key]!r}; this text encoder knows {value!r} only")
    return config


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"{path} does not exist: only safetensors are read (convert pytorch_model.bin with transformers' "
            "save_pretrained)"
        )
    try:
        tensors: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error}): is the file complete?") from error
    return tensors


def _without_prefix(name: str) -> str:
    """Checkpoints of BERT inside a larger model say `bert.`; the oldest call LayerNorm's arrays gamma and beta."""
    name = name.removeprefix("bert.")
    return re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))


def tensor_names(spec: BertSpec) -> dict[str, str]:
    """Our parameter path → the checkpoint's tensor name."""
    modules = dict(_MODULES)
    if spec.pooling != "pooler":
        del modules["pooler.dense"]
    for number in range(spec.layers):
        modules |= {
            f"encoder.layer.{number}.{theirs}": f"layer{number}/{ours}" for theirs, ours in _LAYER_MODULES.items()
        }
    names = {}
    for theirs, ours in modules.items():
        if theirs.endswith("_embeddings"):
            names[f"{ours}/embedding"] = f"{theirs}.weight"
        else:
            names[f"{ours}/{'scale' if ours.endswith('norm') else 'kernel'}"] = f"{theirs}.weight"
            names[f"{ours}/bias"] = f"{theirs}.bias"
    return names


def _check_sizes(spec: BertSpec, folder: Path) -> None:
    config = _read_config(folder)
    wrong = [
        f"{field} {getattr(spec, field)} (checkpoint: {config[key]})"
        for field, key in SIZES.items()
        if key in config and getattr(spec, field) != config[key]
    ]
    if wrong:
        raise WeightsError(
            f"text_encoder does not describe the checkpoint in {folder}: {', '.join(wrong)}; set these fields to it"
        )


def _check_names(spec: BertSpec, found: set[str], wanted: set[str], folder: Path) -> None:
    missing = sorted(wanted - found)
    if missing == ["pooler.dense.bias", "pooler.dense.weight"]:
        raise WeightsError(
            f"the checkpoint in {folder} has no pooler, which text_encoder.pooling = 'pooler' needs: "
            "set it to 'cls' or 'mean'"
        )
    unused_pooler = set() if spec.pooling == "pooler" else {"pooler.dense.bias", "pooler.dense.weight"}
    unknown = sorted(name for name in found - wanted - unused_pooler if not _NOT_OURS.search(name))
    if missing or unknown:
        raise WeightsError(
            f"the checkpoint in {folder} is not the specified BERT: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}"
        )


def _cut_vocabulary(table: np.ndarray, vocab_size: int, folder: Path) -> np.ndarray:
    if len(table) < vocab_size:
        raise WeightsError(
            f"the tokenizer has {vocab_size} tokens and the checkpoint in {folder} {len(table)}: "
            "set text_encoder.tokenizer.source to the checkpoint's own tokenizer"
        )
    return table[:vocab_size]


def _insert(tree: Tree, path: str, value: np.ndarray) -> None:
    *folders, leaf = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[leaf] = value
