"""Zero-shot scores: the cosine of an ECG with the mean of a concept's prompts.

A score depends on its own ECG alone. (MERL's released evaluation standardises logits over the batch, so that a
record's score changes with its neighbours; that is left out on purpose.) Scores are similarities, not probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

EncodeText = Callable[[list[str]], Float[np.ndarray, "texts dim"]]


def normalise(vectors: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
    """Rows scaled to unit length; a zero row stays zero, a row that is not finite stays not finite."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: np.ndarray = np.divide(vectors, length, out=np.zeros_like(vectors), where=length != 0)
    return unit


def prompt_matrix(
    concepts: Sequence[str], prompts: Mapping[str, Sequence[str]], encode_text: EncodeText
) -> Float[np.ndarray, "concepts dim"]:
    """One unit vector per concept: its prompts' unit embeddings averaged, the mean scaled to unit length.

    A concept without prompts is a row of NaN, so its scores are undefined and it is reported, never guessed.
    """
    texts = [text for concept in concepts for text in prompts.get(concept, ())]
    if not texts:
        return np.full((len(concepts), 1), np.nan, np.float32)
    embedded = normalise(np.asarray(encode_text(texts), np.float32))
    result = np.full((len(concepts), embedded.shape[1]), np.nan, np.float32)
    start = 0
    for row, concept in enumerate(concepts):
        count = len(prompts.get(concept, ()))
        if count:
            result[row] = normalise(embedded[start : start + count].mean(axis=0))
        start += count
    return result


def zero_shot_scores(
    ecg: Float[np.ndarray, "records dim"], concept_vectors: Float[np.ndarray, "concepts dim"]
) -> Float[np.ndarray, "records concepts"]:
    """Cosine similarity of every ECG with every concept, float32."""
    scores: np.ndarray = (normalise(ecg) @ concept_vectors.T).astype(np.float32)
    return scores
