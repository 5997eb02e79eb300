"""A model that has to read text needs a tokenizer."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mneme.errors import ModelNotFound


def require_tokenizer(tokenizer: PreTrainedTokenizerBase | None, model: str | Path) -> PreTrainedTokenizerBase:
    """`tokenizer`, which belongs to `model`. Raises ModelNotFound where there is none."""
    if tokenizer is None:
        raise ModelNotFound(
            f"{model} has no tokenizer. Save the tokenizer of its base into its folder (tokenizer.save_pretrained)."
        )
    return tokenizer
