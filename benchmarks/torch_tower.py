"""The ECG towers in PyTorch, written from the published description: the peer of the benchmark, the oracle of parity.

Description: MERL (arXiv 2403.06659) and its released code; ECGCLIP's released encoder is the same with 8 leads. Modules
are named as our parameter paths, so that weights copy by name.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
from torch import nn

PATCH_SAMPLES = 50
"""Of the transformer: MERL's."""
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Block(nn.Module):
    """Two 3-tap convolutions, or 1-3-1 taps with four times the width; ReLU after adding the shortcut."""

    def __init__(self, width_in: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        sizes = [(3, width, stride), (3, width, 1)]
        if bottleneck:
            sizes = [(1, width, 1), (3, width, stride), (1, 4 * width, 1)]
        width_out = width_in
        self.count = len(sizes)
        for i, (taps, channels, step) in enumerate(sizes, start=1):
            conv = nn.Conv1d(width_out, channels, taps, stride=step, padding=taps // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", nn.BatchNorm1d(channels))
            width_out = channels
        self.changes_shape = stride != 1 or width_in != width_out
        if self.changes_shape:
            self.shortcut_conv = nn.Conv1d(width_in, width_out, 1, stride=stride, bias=False)
            self.shortcut_norm = nn.BatchNorm1d(width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, width_in, time] → [batch, width_out, steps]."""
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (self.shortcut_norm(self.shortcut_conv(x)) if self.changes_shape else x))


class TorchPool(nn.Module):
    """Learned token as the only query over itself and the steps; its position is added twice; a last linear layer."""

    def __init__(self, steps: int, width: int, heads: int) -> None:
        super().__init__()
        self.query_token = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(torch.randn(steps + 1, width) / width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.projection = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, steps, width] → [batch, width]."""
        token = (self.query_token + self.positions[0]).expand(len(x), 1, -1)
        x = torch.cat([token, x], dim=1) + self.positions
        return self.projection(self.attention(x[:, :1], x, x, need_weights=False)[0][:, 0])


class TorchTower(nn.Module):
    """Stem k7 s2 p3 without max-pool, stages of strides 1/2/2/2, 1x1 convolution, attention pooling."""

    def __init__(self, depth: int, leads: int, samples: int) -> None:
        super().__init__()
        bottleneck = depth >= 50
        self.stem = nn.Conv1d(leads, 64, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm1d(64)
        width_in = 64
        for stage, (blocks, stride) in enumerate(zip(BLOCKS[depth], (1, 2, 2, 2), strict=True), start=1):
            layers = nn.Module()
            width = 32 * 2**stage
            for number in range(blocks):
                layers.add_module(f"block{number}", Block(width_in, width, stride if number == 0 else 1, bottleneck))
                width_in = width * (4 if bottleneck else 1)
            self.add_module(f"stage{stage}", layers)
        self.downconv = nn.Conv1d(width_in, 256, 1)
        self.attention_pool = TorchPool(-(-samples // 16), 256, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """[batch, lead, time], after `in_two_dimensions` [batch, lead, 1, time] → the arrays of `EcgOutput` by name."""
        x = torch.relu(self.stem_norm(self.stem(x)))
        for stage in range(1, 5):
            for block in self.get_submodule(f"stage{stage}").children():
                x = block(x)
        narrow = self.downconv(x)
        if x.ndim == 4:
            x, narrow = x.squeeze(2), narrow.squeeze(2)
        pooled = self.attention_pool(narrow.transpose(1, 2))
        return {
            "pooled": pooled,
            "features": x.mean(dim=2),
            "pooled_mean": narrow.mean(dim=2),
            "tokens": x.transpose(1, 2),
        }


class TorchTransformer(nn.Module):
    """MERL's ViT: windows of all leads as tokens with learned positions, pre-norm blocks, norm of the mean over tokens.

    Each block is PyTorch's own layer of that form.
    """

    def __init__(self, leads: int, samples: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch = nn.Conv1d(leads, width, PATCH_SAMPLES, stride=PATCH_SAMPLES, bias=False)
        self.positions = nn.Parameter(torch.randn(samples // PATCH_SAMPLES, width))
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """[batch, lead, time], after `in_two_dimensions` [batch, lead, 1, time] → the arrays of `EcgOutput` by name."""
        tokens = self.patch(x)
        tokens = (tokens.squeeze(2) if tokens.ndim == 4 else tokens).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        features = self.norm(tokens.mean(dim=1))
        return {"pooled": features, "features": features, "pooled_mean": features, "tokens": tokens}


def in_two_dimensions(module: nn.Module) -> nn.Module:
    """The tower with every 1-D convolution and norm as a 2-D one of height 1, its weights kept.

    Only so can PyTorch keep channels last, which tensor cores and oneDNN want.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Conv1d):
            (taps,), (stride,), (pad,) = child.kernel_size, child.stride, child.padding
            bias = child.bias is not None
            flat = nn.Conv2d(
                child.in_channels, child.out_channels, (1, taps), stride=(1, stride), padding=(0, int(pad)), bias=bias
            )
            flat.load_state_dict({key: v[:, :, None] if v.ndim == 3 else v for key, v in child.state_dict().items()})
            module.add_module(name, flat)
        elif isinstance(child, nn.BatchNorm1d):
            norm = nn.BatchNorm2d(child.num_features)
            norm.load_state_dict(child.state_dict())
            module.add_module(name, norm)
        else:
            in_two_dimensions(child)
    return module.to(memory_format=torch.channels_last)


def torch_state(params: dict[str, Any], stats: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Our trees under PyTorch's names and layouts (also of gradients, which have the parameters' shapes)."""
    if "patch" in params:
        return _transformer_state(params)
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state = {}
    for path, leaf in [*jax.tree.leaves_with_path(params), *jax.tree.leaves_with_path(stats)]:
        *modules, leaf_name = [entry.key for entry in path]
        value = np.asarray(leaf)
        if modules == ["downconv"] and leaf_name == "kernel":
            value = value[None]
        if leaf_name == "kernel":
            value = value.transpose()
        state[".".join([*modules, names.get(leaf_name, leaf_name)])] = torch.tensor(value)
    attention = "attention_pool.attention"
    packed = [[state.pop(f"{attention}.{p}.{kind}") for p in ("query", "key", "value")] for kind in ("weight", "bias")]
    state[f"{attention}.in_proj_weight"], state[f"{attention}.in_proj_bias"] = (torch.cat(part) for part in packed)
    for kind in ("weight", "bias"):
        state[f"{attention}.out_proj.{kind}"] = state.pop(f"{attention}.out.{kind}")
    return state


def _transformer_state(params: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of `TorchTransformer`: its convolution's taps are the rows of our matrix, time before lead."""
    by_tap = np.asarray(params["patch"]["kernel"])
    leads = by_tap.shape[0] // PATCH_SAMPLES
    state = {
        "patch.weight": by_tap.reshape(PATCH_SAMPLES, leads, -1).transpose(2, 1, 0),
        "positions": params["positions"],
        "norm.weight": params["norm"]["scale"],
        "norm.bias": params["norm"]["bias"],
    }
    for number in range(sum(name.startswith("block") for name in params)):
        block, root = params[f"block{number}"], f"blocks.{number}"
        attention = block["attention"]
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            packed = [np.asarray(attention[name][ours]).T for name in ("query", "key", "value")]
            state[f"{root}.self_attn.in_proj_{theirs}"] = np.concatenate(packed)
            state[f"{root}.self_attn.out_proj.{theirs}"] = np.asarray(attention["out"][ours]).T
            for layer in ("linear1", "linear2"):
                state[f"{root}.{layer}.{theirs}"] = np.asarray(block[layer][ours]).T
        for norm in ("norm1", "norm2"):
            state |= {f"{root}.{norm}.weight": block[norm]["scale"], f"{root}.{norm}.bias": block[norm]["bias"]}
    return {name: torch.tensor(np.array(value)) for name, value in state.items()}
