"""The wordings that stand for a concept in zero-shot evaluation, per language, with a hash that names the set.

All wordings are ours, in three sets: plain `sentences`, two or three per concept, which are averaged; `class_names`,
the concept's name alone; and `attributes`, one list of synonyms and signs per concept, the form of MERL's prompts.
English sentences share medical words with the synthetic reports but no whole sentence of them, so that a model must
have learned what the words mean; a test intersects prompts and reports. Names and lists do repeat words of reports.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

from ecgclip_jax.text.concepts import CONCEPTS

PromptSetName = Literal["sentences", "class_names", "attributes"]
PROMPT_SETS: tuple[PromptSetName, ...] = get_args(PromptSetName)
Language = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one language: concept or class → wordings to be averaged. `sha` is of the set's canonical JSON."""

    language: str
    prompts: Mapping[str, tuple[str, ...]]
    sha: str
    name: str = "sentences"

    def wordings(self, label: str, concepts: Sequence[str]) -> tuple[str, ...]:
        """Those of a label by its own name, else those of all its concepts; none where the set lacks one of these."""
        if label in self.prompts:
            return tuple(self.prompts[label])
        parts = [self.prompts.get(concept, ()) for concept in concepts]
        return tuple(wording for part in parts for wording in part) if all(parts) else ()


def make_prompt_set(language: str, prompts: Mapping[str, tuple[str, ...]], name: str = "sentences") -> PromptSet:
    """A prompt set of one's own, hashed.

    Raises:
        ValueError: a concept without a prompt, or an empty prompt.
    """
    for concept, wordings in prompts.items():
        if not wordings or not all(w.strip() for w in wordings):
            raise ValueError(f"prompts for {concept!r}: expected at least one non-empty wording, found {wordings!r}")
    canonical = json.dumps({"language": language, "prompts": prompts}, sort_keys=True, ensure_ascii=False)
    return PromptSet(language, dict(prompts), hashlib.sha256(canonical.encode()).hexdigest(), name)


def load_prompts(language: str = "en", name: PromptSetName = "sentences") -> PromptSet:
    """A shipped prompt set; names and attribute lists are there in English only, and empty in other languages.

    Raises:
        ValueError: no prompts in that language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"no prompts in language {language!r}; there are {list(LANGUAGES)}")
    if name == "sentences":
        prompts = {concept: tuple(wordings) for concept, wordings in _data(f"prompts_{language}.json").items()}
    elif language != "en":
        prompts = {}
    elif name == "class_names":
        prompts = {key: (concept.name,) for key, concept in CONCEPTS.items()}
    else:
        prompts = {concept: (listed,) for concept, listed in _data("prompts_en_attributes.json").items()}
    return make_prompt_set(language, prompts, name)


def _data(file: str) -> dict:
    return dict(json.loads((resources.files("ecgclip_jax.text") / "data" / file).read_text("utf-8")))
