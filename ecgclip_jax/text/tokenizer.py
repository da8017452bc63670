"""Texts to token ids: a WordPiece trained on the run's own reports, or any Hugging Face tokenizer.

A run folder keeps its tokenizer as a standard Hugging Face folder, so that `transformers.AutoTokenizer` reads it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ecgclip_jax.spec.encoders import TokenizerSpec
from ecgclip_jax.spec.errors import UserError

TextTokenizer = PreTrainedTokenizerBase
"""Any Hugging Face tokenizer. Other modules take the name from here, so that the switch above comes first."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In BERT's order of ids for a new vocabulary: padding is 0."""


class TokenizerError(UserError):
    """A tokenizer that cannot be trained, found or used; the message says what to do."""


def make_tokenizer(spec: TokenizerSpec, texts: Sequence[str]) -> TextTokenizer:
    """The tokenizer of an experiment: trained on `texts` (`source = train`), or loaded from where `spec` says."""
    return train_wordpiece(texts, spec.vocab_size) if spec.source == "train" else load_tokenizer(spec.source)


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer trained on `texts`; equal sets of texts give an equal vocabulary.

    `tokenizers` numbers the inner characters (`##a`) in the order of a hash map, which differs from process to process
    and decides ties between merges. They are therefore given to the trainer as a sorted list of special tokens, and
    the tokenizer is built anew from the vocabulary, in which they are ordinary pieces.

    Raises:
        TokenizerError: no text, or a `vocab_size` too small for the characters of the texts.
    """
    distinct = sorted(set(texts))
    blank = _bert_like(models.WordPiece(unk_token="[UNK]"))
    characters = sorted({c for text in distinct for c in blank.normalizer.normalize_str(text) if not c.isspace()})
    if not characters:
        raise TokenizerError("no text to train a tokenizer on; expected the reports of the training split")
    inner = [f"##{c}" for c in characters]
    smallest = len(SPECIAL_TOKENS) + len(characters) + len(inner)
    if vocab_size < smallest:
        raise TokenizerError(
            f"tokenizer.vocab_size {vocab_size} is too small: {len(characters)} characters alone need {smallest}"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS, *inner], show_progress=False
    )
    blank.train_from_iterator(distinct, trainer)
    trained = _bert_like(models.WordPiece(blank.get_vocab(), unk_token="[UNK]"))
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def load_tokenizer(source: str | Path) -> TextTokenizer:
    """Any Hugging Face tokenizer: a folder (`tokenizer.json`, or BERT's bare `vocab.txt`) or a name on the Hub.

    Raises:
        TokenizerError: nothing readable there, or a tokenizer without a padding token.
    """
    folder = Path(source)
    # BertTokenizer(vocab_file=...) of transformers 5 ignores the file without a word; `vocab=` reads it.
    if (folder / "vocab.txt").is_file() and not (folder / "tokenizer.json").is_file():
        from transformers import BertTokenizer

        tokenizer: TextTokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=_lowers_case(folder))
    else:
        tokenizer = _from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        raise TokenizerError(f"the tokenizer {source} has no padding token; a BERT-family tokenizer is expected")
    return tokenizer


def encode_texts(
    tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int
) -> tuple[Int32[np.ndarray, "texts tokens"], Bool[np.ndarray, "texts tokens"]]:
    """Token ids and mask `[texts, max_tokens]`, special tokens included, cut and padded to `max_tokens`."""
    if not texts:
        return np.zeros((0, max_tokens), np.int32), np.zeros((0, max_tokens), bool)
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=max_tokens, return_tensors="np")
    return encoded["input_ids"].astype(np.int32), encoded["attention_mask"].astype(bool)


def save(tokenizer: TextTokenizer, folder: str | Path) -> None:
    """Writes a standard Hugging Face folder (`tokenizer.json` and its configuration)."""
    tokenizer.save_pretrained(str(folder))


def fingerprint(tokenizer: TextTokenizer) -> str:
    """SHA-256 (16 hex digits) of everything that decides the ids; the length of a call does not enter."""
    content = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bert_like(model: models.Model) -> Tokenizer:
    """A tokenizer that works as BERT's uncased one: accents stripped, words and punctuation apart, [CLS] … [SEP]."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    return tokenizer


def _from_pretrained(source: Path) -> TextTokenizer:
    # What is written like a path is never asked for on the Hub.
    if not source.is_dir() and (source.is_absolute() or len(source.parts) > 2 or source.parts[:1] in ((), ("..",))):
        raise TokenizerError(f"no tokenizer folder at {source}; expected tokenizer.json or vocab.txt in it")
    from transformers import AutoTokenizer  # which imports PyTorch where there is one

    try:
        return AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise TokenizerError(
            f"cannot load the tokenizer {source}: expected a folder with tokenizer.json or vocab.txt, or a name that "
            f"the Hugging Face Hub knows (offline: download it first and give the folder). {first_line}"
        ) from error


def _lowers_case(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return bool(json.loads(config.read_text()).get("do_lower_case", True)) if config.is_file() else True
