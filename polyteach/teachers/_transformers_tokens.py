"""Prompts as a model's text encoder reads them: what it could not tell apart, or would cut off, is refused.

Shapes: P prompts, T tokens.
"""

from collections.abc import Container, Sequence
from typing import Any

from torch import Tensor

from polyteach.teachers._prompts_file import Prompts

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
"""Files that say how texts become tokens, of which each model has some."""


def token_ids(prompts: Prompts, tokenizer: Any, most: int, lower: bool = False) -> list[list[int]]:
    """The tokens of every prompt, without those that the tokenizer puts around them.

    most: tokens that the encoder takes, those around them included. lower: in small letters, as the model learned.

    Raises:
        ValueError: one has no token that is known, too many, or those of another prompt; names file and class.
    """
    out: list[list[int]] = []
    seen: dict[tuple[int, ...], int] = {}
    for i, text in enumerate(prompts.flat):
        said = text.lower() if lower else text
        ids = tokenizer(said, add_special_tokens=False)["input_ids"]
        if not ids or all(n == tokenizer.unk_token_id for n in ids):
            raise prompts.wrong(i, "has no word that the model's text encoder knows")
        count = len(tokenizer(said)["input_ids"])
        if count > most:
            raise prompts.wrong(i, f"has {count} tokens, and the model's text encoder takes {most}; shorten it")
        if (other := seen.setdefault(tuple(ids), i)) != i:
            name = prompts.names[prompts.owners[other]]
            raise prompts.wrong(i, f"is to the model the same text as {prompts.flat[other]!r} of class {name!r}")
        out.append(ids)
    return out


def padded(tokenizer: Any, texts: Sequence[str], length: int | None, takes: Container[str]) -> dict[str, Tensor]:
    """Texts as the encoder's inputs, (P, T) int64 each: padded to `length`, or to the longest without it.

    takes: names of the inputs that it has.

    Raises:
        ValueError: the tokenizer has nothing to pad with.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no pad_token; name one in tokenizer_config.json")
    way: dict[str, Any] = {"padding": True} if length is None else {"padding": "max_length", "max_length": length}
    made = tokenizer(list(texts), return_tensors="pt", **way)
    return {name: value for name, value in made.items() if name in takes}
