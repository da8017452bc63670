"""MERL's training step in PyTorch, as published and tuned, written from its description (arXiv 2403.06659, its code).

Published: ResNet-1D or ViT-1D on [batch, lead, time], BERT-base without gradient but in train mode on reports padded to
256 tokens, its pooler output, a linear-GELU-linear text head, two linear views of the mean over time with dropout,
both losses as sums of two directions at temperature 0.07, AdamW with warm restarts stepped in every iteration, fp16
autocast with a gradient scaler, and a loss read back in every step. Tuned: what a good PyTorch user would change.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

from benchmarks.step_cases import GATE_BATCH, VOCABULARY, Case, experiment, text_tokens
from benchmarks.torch_tower import TorchTower, TorchTransformer, in_two_dimensions, torch_state
from ecgclip_jax.models.bert_weights import SIZES, tensor_names
from ecgclip_jax.spec.encoders import BertSpec, ViT1DSpec

TEMPERATURE: Final = 0.07
WIDTH: Final = 256
HEAD_NAMES: Final = {
    "text_head/linear1": "text_head.0",
    "text_head/linear2": "text_head.2",
    "ecg_head/linear1": "ecg_head.0",
    "ecg_head/linear2": "ecg_head.2",
    "view_1/linear": "views.0",
    "view_2/linear": "views.1",
}


@dataclass(frozen=True)
class Form:
    """How the step is written."""

    text_in_loop: bool
    half: torch.dtype
    """Of autocast, on accelerators; on a CPU both forms compute in float32."""
    tuned: bool
    """Channels last, `torch.compile`, fused AdamW, TF32, autotuned convolutions, no loss read back."""


FORMS: Final = {
    "published": Form(text_in_loop=True, half=torch.float16, tuned=False),
    "published, text cached": Form(text_in_loop=False, half=torch.float16, tuned=False),
    "tuned": Form(text_in_loop=False, half=torch.bfloat16, tuned=True),
}


def platform() -> dict[str, Any]:
    """What PyTorch runs on here."""
    if not torch.cuda.is_available():
        return {"platform": "cpu", "kind": "cpu", "version": torch.__version__}
    return {"platform": "gpu", "kind": torch.cuda.get_device_name(), "version": torch.__version__}


class Merl(nn.Module):
    """Tower, heads and, if it is in the loop, the frozen text tower."""

    def __init__(self, case: Case, bert: BertSpec | None, dropout: float) -> None:
        super().__init__()
        self.tower: nn.Module = torch_tower(case)
        self.text_head = nn.Sequential(nn.Linear(768, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        width = case.encoder.pooled_width
        self.ecg_head: nn.Module = nn.Identity()
        if isinstance(case.encoder, ViT1DSpec):
            self.ecg_head = nn.Sequential(nn.Linear(width, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.views = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.bert = None
        if bert is not None:
            sizes = {theirs: getattr(bert, ours) for ours, theirs in SIZES.items()}
            rates = {"hidden_dropout_prob": bert.dropout, "attention_probs_dropout_prob": bert.dropout}
            self.bert = transformers.BertModel(transformers.BertConfig(vocab_size=VOCABULARY, **sizes, **rates))
            self.bert.requires_grad_(False)

    def forward(self, x: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Both losses; embeddings are compared in float32."""
        ecg = self.tower(x)
        text = self.text_head(pooled)
        views = (self.dropout(view(ecg["pooled_mean"])) for view in self.views)
        return contrast(self.ecg_head(ecg["pooled"]), text) + contrast(*views)

    def pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The text tower's output, without gradient."""
        assert self.bert is not None
        with torch.no_grad():
            return self.bert(ids, mask).pooler_output


def torch_tower(case: Case) -> nn.Module:
    """The case's encoder in PyTorch."""
    encoder = case.encoder
    if isinstance(encoder, ViT1DSpec):
        return TorchTransformer(case.leads, case.samples, encoder.width, encoder.depth, encoder.heads)
    return TorchTower(encoder.depth, case.leads, case.samples)


def contrast(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the cosine similarities in both directions, summed."""
    logits = functional.normalize(a.float(), dim=1) @ functional.normalize(b.float(), dim=1).T / TEMPERATURE
    diagonal = torch.arange(len(a), device=a.device)
    return functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)


class TorchStep:
    """One device's training step on a batch that stays there."""

    def __init__(self, case: Case, batch: int, form: str, *, gate: Path | None = None) -> None:
        """With `gate`, without dropout and uncompiled, from the weights and on the input written there.

        In the gate it is in float64, so that the rounding that shows is ours alone: of two forms in float32 each adds
        its own, and kernels in channels-last order up to four times that of the published form.
        """
        self.form, self.case = FORMS[form], case
        self.cuda = torch.cuda.is_available() and gate is None
        device = "cuda" if self.cuda else "cpu"
        torch.set_float32_matmul_precision("high" if self.form.tuned and self.cuda else "highest")
        torch.backends.cudnn.benchmark = self.form.tuned
        spec = experiment(case, batch, dtype="float32", text_in_loop=self.form.text_in_loop, gate=gate is not None)
        model = Merl(case, spec.text_encoder if self.form.text_in_loop else None, 0.0 if gate else 0.1)
        self._stored = {} if gate is None else load_file(gate / "gate.safetensors")
        if gate is not None:
            _load(model, self._stored, spec.text_encoder)
        if self.form.tuned:
            model.tower = in_two_dimensions(model.tower)
        self.model = model.to(device, torch.float32 if gate is None else torch.float64).train()
        self._loss_of: Any = model
        if self.form.tuned and gate is None:
            self._loss_of = torch.compile(model, dynamic=False)
        settings = spec.optimizer
        self._optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=settings.peak_lr,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=True if self.form.tuned else None,
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            self._optimizer, T_0=settings.restart_steps, eta_min=settings.end_lr
        )
        self._scaler = torch.amp.GradScaler(device, enabled=self.cuda and not self.form.tuned)
        self._x, self._texts = self._inputs(batch, device)
        if gate is not None:
            self._x = self._x.double()
            self._texts = tuple(text.double() if text.is_floating_point() else text for text in self._texts)
        self._loss = math.nan

    def _inputs(self, batch: int, device: str) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        signal = self._stored.get("signal")
        if signal is None:
            signal = np.random.default_rng(0).random((batch, self.case.samples, self.case.leads), np.float32)
        x = torch.tensor(signal).transpose(1, 2).contiguous().to(device)
        if self.form.tuned:
            x = x[:, :, None].contiguous(memory_format=torch.channels_last)
        if self.form.text_in_loop:
            ids, mask = text_tokens(batch)
            return x, (torch.tensor(ids).long().to(device), torch.tensor(mask).long().to(device))
        pooled = self._stored.get("pooled")
        if pooled is None:
            pooled = np.random.default_rng(2).normal(size=(batch, 768)).astype(np.float32)
        return x, (torch.tensor(pooled).to(device),)

    def _once(self) -> torch.Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", self.form.half) if self.cuda else nullcontext():
            pooled = self.model.pooled(*self._texts) if self.form.text_in_loop else self._texts[0]
            loss = self._loss_of(self._x, pooled)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        if not self.form.tuned:
            loss.item()  # as published: for the progress bar
        return loss.detach()

    def steps(self, number: int) -> None:
        """So many updates; waits for the last."""
        for _ in range(number):
            loss = self._once()
        self._loss = float(loss)
        if self.cuda:
            torch.cuda.synchronize()

    def first(self) -> dict[str, Any]:
        """Compiles, where it does, and makes one update."""
        began_s = time.perf_counter()
        self.steps(1)
        precision = str(self.form.half).removeprefix("torch.") if self.cuda else "float32"
        return {"first_step_s": time.perf_counter() - began_s, "loss": self._loss, "precision": precision}

    def peak_bytes(self) -> int | None:
        """Most memory in use so far; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.cuda else None

    def three_losses(self) -> tuple[list[float], dict[str, float]]:
        """Losses of three updates in the gate; how far gradient and running statistics of the first are from ours."""
        losses = []
        for number in range(3):
            self.steps(1)
            losses.append(self._loss)
            if number == 0:
                apart = {"gradient": self._gradient_apart(), "BatchNorm statistics": self._statistics_apart()}
        return losses, apart

    def _gradient_apart(self) -> float:
        """Length of the difference between both gradients, in lengths of ours."""
        theirs = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        ours = _torch_names(_tree(self._stored, "gradient"), {})
        if set(ours) != set(theirs):
            raise ValueError(f"gradients of other parameters: {sorted(set(ours) ^ set(theirs))[:5]}")
        squares = sum(float((g - theirs[name].reshape(g.shape)).square().sum()) for name, g in ours.items())
        return math.sqrt(squares / sum(float(g.square().sum()) for g in ours.values()))

    def _statistics_apart(self) -> float:
        """Largest difference of a running mean or variance, in units of the largest one of its norm."""
        theirs = dict(self.model.tower.named_buffers())
        params, after = _tree(self._stored, "params")["ecg"], _tree(self._stored, "stats_after").get("ecg", {})
        ours = {name: value for name, value in torch_state(params, after).items() if ".running_" in name}
        apart = (float((theirs[name] - value).abs().max() / value.abs().max()) for name, value in ours.items())
        return max(apart, default=0.0)


def _tree(stored: dict[str, np.ndarray], root: str) -> dict[str, Any]:
    """The arrays under `root/` as nested dictionaries again."""
    tree: dict[str, Any] = {}
    for path, value in stored.items():
        if path.startswith(f"{root}/"):
            *folders, leaf = path.split("/")[1:]
            place = tree
            for folder in folders:
                place = place.setdefault(folder, {})
            place[leaf] = value
    return tree


def _torch_names(params: dict[str, Any], stats: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Our tower and heads under the names of `Merl`."""
    state = {f"tower.{name}": value for name, value in torch_state(params["ecg"], stats).items()}
    for ours, theirs in HEAD_NAMES.items():
        head, layer = ours.split("/")
        if not params["objective"].get(head):  # ResNets pool into the shared space themselves
            continue
        leaves = params["objective"][head][layer]
        state[f"{theirs}.weight"] = torch.tensor(leaves["kernel"].T.copy())
        if "bias" in leaves:
            state[f"{theirs}.bias"] = torch.tensor(leaves["bias"])
    return state


def _load(model: Merl, stored: dict[str, np.ndarray], bert: BertSpec | None) -> None:
    params = _tree(stored, "params")
    state = _torch_names(params, _tree(stored, "stats").get("ecg", {}))
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("bert.") and not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"weights without a place: {missing[:5]}, {unexpected[:5]}")
    if model.bert is not None and bert is not None:
        text = {}
        for path, name in tensor_names(bert).items():
            value = stored[f"params/text/{path}"]
            text[name] = torch.tensor(value.T.copy() if path.endswith("/kernel") else value)
        model.bert.load_state_dict(text, strict=True)


def gate(case: Case, folder: Path) -> dict[str, Any]:
    """The gate's three steps in every form, uncompiled."""
    found = {}
    for form in FORMS:
        step = TorchStep(case, GATE_BATCH, form, gate=folder)
        losses, apart = step.three_losses()
        found[form] = {"losses": losses, **apart}
    return found
