"""Prompts from a file of the user's: any own wordings, and MERL's published ones as released and repaired.

A prompt file is JSON: concept or class of a label set → a wording, or a list of wordings that are averaged. MERL's file
(`zeroshot/CKEPE_prompt.json` of cheliu-computation/MERL-ICML2024) has this form and is known by its content. It is no
part of this project; it is read from where the user has it, and gives two sets: `merl_as_released`, each list in lower
case as one text, as the released code takes it, and `merl_repaired`, the same less the phrases that
`data/merl_prompt_repairs.toml` takes away.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.text.prompts import Language, PromptSet, make_prompt_set

MERL_CONTENT = "301bb4140ea53d8cfa66ca3b4556dd6f8cbd719deeba3f536aca42a4b8d74c5c"
"""SHA-256 of the published file's canonical JSON, so that another layout of the same prompts is known as well."""


class PromptFileError(UserError):
    """A prompt file that cannot be used; the message says what was expected and what to do."""


def read_prompt_file(path: str | Path, language: Language = "en") -> tuple[PromptSet, ...]:
    """The prompt sets of a file: one named after it, or MERL's two.

    Raises:
        PromptFileError: no such file, no JSON object, or a wording that is no text.
    """
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromptFileError(
            f"{path}: expected a JSON file of prompts, found {error}; give --prompts a file of the form "
            '{"atrial_fibrillation": ["a wording", "another"]}'
        ) from error
    prompts = _wordings(path, raw)
    if hashlib.sha256(_canonical(raw)).hexdigest() == MERL_CONTENT:
        return merl_prompt_sets({name: listed for name, (listed,) in prompts.items()})
    return (make_prompt_set(language, prompts, path.stem),)


def merl_prompt_sets(published: Mapping[str, str]) -> tuple[PromptSet, PromptSet]:
    """MERL's prompts as released and repaired; in both a class has one text."""
    released = {name: (listed.lower(),) for name, listed in published.items()}
    repaired = {name: (_repaired(name, listed),) for name, (listed,) in released.items()}
    return make_prompt_set("en", released, "merl_as_released"), make_prompt_set("en", repaired, "merl_repaired")


@cache
def merl_repairs() -> Mapping[str, tuple[str, ...]]:
    """By class: words whose phrases are taken away."""
    text = (resources.files("ecgclip_jax.text") / "data" / "merl_prompt_repairs.toml").read_text("utf-8")
    return {name: tuple(entry["without"]) for name, entry in tomllib.loads(text).items()}


def _repaired(name: str, listed: str) -> str:
    """The list less its faulty phrases; a class without a repair stays as it is."""
    without = merl_repairs().get(name)
    if without is None:
        return listed
    # The list of a chat has bullets, commas within its sentences, and a last sentence hanging on the last bullet.
    phrases = re.split(r"[*]|(?=let me know)" if "*" in listed else ",", listed)
    kept = [phrase.strip(" .!") for phrase in phrases if not any(word in phrase for word in without)]
    return ", ".join(dict.fromkeys(phrase for phrase in kept if phrase)) + "."


def _wordings(path: Path, raw: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(raw, dict) or not raw:
        raise PromptFileError(f"{path}: expected a JSON object of concept → wordings, found {type(raw).__name__}")
    found = {}
    for name, given in raw.items():
        wordings: Sequence[object] = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        texts = tuple(wording for wording in wordings if isinstance(wording, str) and wording.strip())
        if not texts or len(texts) != len(wordings):
            raise PromptFileError(
                f"{path}: {name!r}: expected a text or a list of texts, found {json.dumps(given)[:80]}"
            )
        found[name] = texts
    return found


def _canonical(raw: object) -> bytes:
    return json.dumps(raw, sort_keys=True, ensure_ascii=False).encode()
