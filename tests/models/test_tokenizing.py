"""What a model without a tokenizer is told, in every command the same."""

import pytest

from mneme.errors import ModelNotFound
from mneme.models.tokenizers import require_tokenizer
from tests.conftest import word_tokenizer


def test_one_sentence_for_a_model_without_a_tokenizer() -> None:
    tokenizer = word_tokenizer()
    assert require_tokenizer(tokenizer, "model") is tokenizer
    with pytest.raises(ModelNotFound, match=r"^runs/sft has no tokenizer. Save the tokenizer of its base into its folder"):
        require_tokenizer(None, "runs/sft")
