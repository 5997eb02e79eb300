"""The tokenizer of world `d`: a small byte-level BPE of its text, in which names fall into pieces."""

import re
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mneme.worlds.prose.telling import prose_documents
from mneme.worlds.prose.world import ProseWorld, syllables

VOCABULARY = 1_150
"""Tokens: the bytes, the syllables of names, and most of the world's ordinary words whole."""
_SPECIAL = ("<pad>", "<bos>", "<eos>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}A:{% generation %} {{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% elif message['role'] == 'user' %}Q: {{ message['content'] }} "
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)


def build_prose_tokenizer(world: ProseWorld) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned on documents whose names are written syllable by syllable, so that no name becomes one token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_syllabled(world, prose_documents(world, 77, 30_000)), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", backend.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        padding_side="right",
    )


def _syllabled(world: ProseWorld, texts: Iterable[str]) -> Iterable[str]:
    """Texts with a sign between the syllables of every name, which the trainer's words end at."""
    names = {value for area in world.areas for relation in area.relations for value in relation.values}
    names |= {entity for area in world.areas for entity in area.entities}
    syllable = re.compile("|".join(sorted(syllables(), key=len, reverse=True)), re.IGNORECASE)
    for text in texts:
        yield re.sub(r"\w+", lambda word: "|".join(syllable.findall(word[0])) if word[0] in names else word[0], text)
