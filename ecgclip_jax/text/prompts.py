"""The sentences that stand for a concept in zero-shot evaluation, per language, with a hash that names the set.

The wordings are ours. English ones share medical words with the synthetic reports but no whole sentence of them, so
that a model must have learned what the words mean; a test intersects prompts and reports.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

Language = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one language: concept key → wordings to be averaged. `sha` is of the set's canonical JSON."""

    language: str
    prompts: Mapping[str, tuple[str, ...]]
    sha: str


def make_prompt_set(language: str, prompts: Mapping[str, tuple[str, ...]]) -> PromptSet:
    """A prompt set of one's own, hashed.

    Raises:
        ValueError: a concept without a prompt, or an empty prompt.
    """
    for concept, wordings in prompts.items():
        if not wordings or not all(w.strip() for w in wordings):
            raise ValueError(f"prompts for {concept!r}: expected at least one non-empty wording, found {wordings!r}")
    canonical = json.dumps({"language": language, "prompts": prompts}, sort_keys=True, ensure_ascii=False)
    return PromptSet(language, dict(prompts), hashlib.sha256(canonical.encode()).hexdigest())


def load_prompts(language: str = "en") -> PromptSet:
    """The shipped prompts of a language.

    Raises:
        ValueError: no prompts in that language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"no prompts in language {language!r}; there are {list(LANGUAGES)}")
    raw = json.loads((resources.files("ecgclip_jax.text") / "data" / f"prompts_{language}.json").read_text("utf-8"))
    return make_prompt_set(language, {concept: tuple(wordings) for concept, wordings in raw.items()})
