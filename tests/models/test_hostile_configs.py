"""Folders made to hang, to fill memory or to run code: one sentence within five seconds, and nothing run."""

import json
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mneme.errors import BadModel, BadTemplate, BrokenWeights, ModelNotFound, UnsafeWeights, UnsupportedArchitecture
from mneme.models.adapter_files import named_base
from mneme.models.checkpoints import weight_files
from mneme.models.pair import load_model, load_pair
from mneme.models.safe_config import read_config
from mneme.models.tokenizers import ends_quickly, load_tokenizer
from tests.conftest import TinyPair, tiny_llama
from tests.models.architectures import random_model
from tests.models.test_pair import save_adapter


@contextmanager
def within_five_seconds() -> Iterator[None]:
    """Counts the processor's time, of this process and of those it ended: a busy machine makes no test fail."""

    def used() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(found.ru_utime + found.ru_stime for found in map(resource.getrusage, kinds))

    before = used()
    yield
    assert used() - before < 5


@contextmanager
def refused(error: type[BadModel], words: str) -> Iterator[None]:
    """One sentence of that kind within five seconds."""
    with within_five_seconds(), pytest.raises(error, match=words) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.fixture
def folder(tiny_pair: TinyPair, tmp_path: Path) -> Path:
    """A copy of a good model that a test may spoil."""
    return Path(shutil.copytree(tiny_pair.base, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    """Puts values into a JSON file."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


NUMBERS = [
    ({"num_hidden_layers": 10**6}, r"num_hidden_layers is 1000000\. Expected at most the .* tensors"),
    ({"num_hidden_layers": 10**400}, "num_hidden_layers is '1000"),
    ({"num_hidden_layers": 0}, r"num_hidden_layers is '0'\. Expected a whole number from 1"),
    ({"num_attention_heads": 0}, r"num_attention_heads is '0'\. Expected a whole number from 1"),
    ({"num_key_value_heads": -2}, r"num_key_value_heads is '-2'\. Expected a whole number"),
    ({"vocab_size": "many"}, r"vocab_size is 'many'\. Expected a whole number"),
    ({"vocab_size": 10**12}, "describes a model of .* numbers, and its weights hold"),
    ({"hidden_size": -16}, "hidden_size is '-16'"),
    ({"hidden_size": float("nan")}, "hidden_size is 'nan'"),
    ({"hidden_size": 16.0}, "hidden_size is '16.0'"),
    ({"hidden_size": 2**33, "head_dim": 8}, "describes a model of|cannot be loaded"),
    ({"intermediate_size": float("inf")}, "intermediate_size is 'inf'"),
    ({"intermediate_size": 10**9}, "describes a model of .* numbers, and its weights hold"),
    ({"head_dim": 10**9}, "describes a model of .* numbers, and its weights hold"),
    ({"hidden_size": True}, "hidden_size is 'True'"),
    ({"layer_types": ["full_attention"] * 10**5}, "holds a list of 100,000"),
]


@pytest.mark.parametrize(("values", "words"), NUMBERS, ids=[str(values)[:40] for values, _ in NUMBERS])
def test_sizes_are_checked_before_anything_is_made(folder: Path, values: dict[str, Any], words: str) -> None:
    change(folder / "config.json", **values)
    with refused(BrokenWeights, words):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mixtral", {"num_local_experts": 10**7}),
        ("gpt2", {"n_layer": 10**6}),
        ("gpt2", {"n_positions": 10**8}),
        ("opt", {"max_position_embeddings": 10**10}),
        ("cohere", {"num_hidden_layers": 10**5}),
    ],
)
def test_sizes_under_the_names_of_other_families(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    random_model(name).save_pretrained(tmp_path)
    read_config(tmp_path, weight_files(tmp_path), False)
    change(tmp_path / "config.json", **values)
    with refused(BrokenWeights, "Expected"):
        load_model(tmp_path)


def test_tables_that_no_weight_bounds(tmp_path: Path) -> None:
    """GPT-J's triangular mask is a square of the number of positions, which none of its weights has as a side."""
    from transformers import GPTJConfig, GPTJForCausalLM

    GPTJForCausalLM(GPTJConfig(vocab_size=64, n_embd=16, n_layer=1, n_head=2, rotary_dim=4, n_positions=64)).save_pretrained(
        tmp_path
    )
    read_config(tmp_path, weight_files(tmp_path), False)
    change(tmp_path / "config.json", n_positions=10**9)
    with refused(BrokenWeights, "config.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    "deep", ['{"a":' * 200 + "1" + "}" * 200, '{"a":' + "[" * 10**5 + "]" * 10**5 + "}", '{"a": ' + "9" * 5000 + "}"]
)
def test_json_that_exhausts_the_stack(folder: Path, name: str, deep: str) -> None:
    (folder / name).write_text(deep)
    with refused(BrokenWeights, f"{name} is not JSON .*Copy the folder again"):
        load_model(folder)


TEMPLATES = {
    "a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a text": "{{ 'a' * 10**10 }}",
    "doubling": "{% set s = namespace(t='ab') %}{% for i in range(60) %}{% set s.t = s.t ~ s.t %}{% endfor %}{{ s.t }}",
    "a list": "{{ ([0] * 10**10) | length }}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "words": "{{ lipsum(n=10**8) }}",
    "a width": "{{ '%2000000000d' % 1 }}",
    "brackets": "{{" + "(" * 20000 + "1" + ")" * 20000 + "}}",
    "system prompts alone": "{% if messages[0].role == 'system' %}{{ 'a' * 10**10 }}{% endif %}{{ messages[0].content }}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_chat_templates_have_a_limit(folder: Path, kind: str) -> None:
    if kind.startswith("a "):
        change(folder / "tokenizer_config.json", chat_template=TEMPLATES[kind])
    else:
        (folder / "chat_template.jinja").write_text(TEMPLATES[kind])
    with refused(BadTemplate, r"chat template of .* was stopped: .*Put the template of the published model"):
        load_tokenizer(folder)


ADAPTERS = [
    ({"target_modules": r"(([a-z]|[a-z_.0-9])+)+X"}, "matching target_modules .* was stopped"),
    ({"exclude_modules": r"(([a-z]|[a-z_.0-9])+)+X"}, "matching exclude_modules .* was stopped"),
    ({"modules_to_save": [r"(([a-z]|[a-z_.0-9])+)+X"]}, "matching modules_to_save .* was stopped"),
    ({"rank_pattern": {r"(([a-z]|[a-z_.0-9])+)+X": 2}}, "matching rank_pattern .* was stopped"),
    ({"alpha_pattern": {r"(([a-z]|[a-z_.0-9])+)+X": 2}}, "matching alpha_pattern .* was stopped"),
    ({"layers_pattern": r"(([a-z]|[a-z_.0-9])+)+X", "layers_to_transform": [0]}, "matching layers_pattern .* was stopped"),
    ({"r": 10**9}, "the rank r is '1000000000'. Expected a whole number of at most"),
    ({"r": "two"}, "the rank r is 'two'"),
    ({"r": 2.5}, "the rank r is '2.5'"),
    ({"rank_pattern": {"q_proj": 10**9}}, "the rank rank_pattern is '1000000000'"),
    ({"layer_replication": [[0, 10**9]]}, "layer_replication is"),
    ({"layer_replication": [[0, 2]] * 10**4}, "layer_replication asks for more layers"),
]


@pytest.mark.parametrize(("values", "words"), ADAPTERS, ids=[str(values)[:40] for values, _ in ADAPTERS])
def test_adapters_have_limits(tiny_pair: TinyPair, tmp_path: Path, values: dict[str, Any], words: str) -> None:
    adapter = save_adapter(tmp_path / "adapter", tiny_pair.base)
    change(adapter / "adapter_config.json", **values)
    with refused(BrokenWeights, words):
        load_pair(tiny_pair.base, adapter)


@pytest.mark.parametrize(
    "values", [{"target_modules": {"a": 1}}, {"target_modules": 5}, {"lora_alpha": "x"}, {"peft_type": "NO"}]
)
def test_adapters_of_wrong_types(tiny_pair: TinyPair, tmp_path: Path, values: dict[str, Any]) -> None:
    adapter = save_adapter(tmp_path / "adapter", tiny_pair.base)
    change(adapter / "adapter_config.json", **values)
    with within_five_seconds(), pytest.raises(Exception, match="adapter") as caught:
        load_pair(tiny_pair.base, adapter)
    assert type(caught.value).__module__ == "mneme.errors"


def test_adapters_that_lead_elsewhere(tiny_pair: TinyPair, tmp_path: Path) -> None:
    first = save_adapter(tmp_path / "first", tiny_pair.base)
    second = save_adapter(tmp_path / "second", first)
    assert named_base(second) == str(first)
    change(first / "adapter_config.json", base_model_name_or_path=str(second))
    with refused(ModelNotFound, "leads back to it"):
        load_model(first)
    change(first / "adapter_config.json", base_model_name_or_path=str(first))
    with refused(ModelNotFound, "leads back to it"):
        load_model(first)
    other = save_adapter(tmp_path / "other", tiny_pair.base)
    change(other / "adapter_config.json", megatron_config={"a": 1}, megatron_core="megatron.core")
    with refused(UnsafeWeights, "asks for code of another library"):
        load_pair(tiny_pair.base, other)
    change(other / "adapter_config.json", megatron_config=None, peft_type="XLORA", adapters={"0": str(first)})
    with refused(UnsupportedArchitecture, "names by path"):
        load_pair(tiny_pair.base, other)


def split(pattern: str) -> dict[str, Any]:
    """A pre-tokenizer that splits at a pattern."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: str) -> dict[str, Any]:
    """A normalizer that replaces a pattern."""
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}


TOKENIZERS = [
    {"pre_tokenizer": split(r"(a+)+$")},
    {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(r"(x|xx)+y")]}},
    {"pre_tokenizer": split(r"^(([a-z])+.)+[A-Z]([a-z])+$")},
    {"normalizer": replace(r"(1|11)+2")},
    {"normalizer": {"type": "Sequence", "normalizers": [replace(r"( | )+\.$")]}},
]


@pytest.mark.parametrize("parts", TOKENIZERS, ids=str)
def test_patterns_of_tokenizers_have_a_limit(folder: Path, parts: dict[str, Any]) -> None:
    change(folder / "tokenizer.json", **parts)
    with refused(BrokenWeights, r"tokenizer in .* was stopped: .*its pattern is '"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"extra_ids": 10**9, "tokenizer_class": "T5Tokenizer"}),
        ("tokenizer.json", {"added_tokens": [{"id": i, "content": f"<{i}>"} for i in range(300_000)]}),
        ("tokenizer.json", {"model": 5}),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}}),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Nothing"}}),
        ("tokenizer_config.json", {"added_tokens_decoder": 7, "tokenizer_class": 5}),
    ],
    ids=str,
)
def test_tokenizers_of_wrong_sizes_and_types(folder: Path, name: str, values: dict[str, Any]) -> None:
    change(folder / name, **values)
    with refused(BrokenWeights, "tokenizer"):
        load_tokenizer(folder)


PUBLISHED = {
    "GPT-2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    "by threes": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t)?",
    "classes": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[]a(]+|[^](+]",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_patterns_are_not_tried(name: str) -> None:
    assert ends_quickly(PUBLISHED[name])


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|aa)+$", r"(?:(b)*){2,}", r"((x{1,9}){1,9}){1,9}", r"(a*)\1*", r"([ab]|b)*"]
)
def test_nested_repetition_is_tried(pattern: str) -> None:
    assert not ends_quickly(pattern)


LOADERS = [
    {"_attn_implementation": "somebody/kernel:attend"},
    {"attn_implementation": "somebody/kernel@main"},
    {"attn_implementation": {"": "somebody/kernel", "text_config": "somebody/kernel"}},
    {"_attn_implementation_internal": "somebody/kernel"},
    {"experts_implementation": "somebody/kernel"},
    {"_experts_implementation": "somebody/kernel"},
]


@pytest.mark.parametrize("values", LOADERS, ids=str)
def test_names_of_kernels_are_dropped(tiny_pair: TinyPair, folder: Path, values: dict[str, Any]) -> None:
    change(folder / "config.json", **values)
    model = load_model(folder).parts.model
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert "kernel" not in str(model.config._experts_implementation)
    ids = torch.arange(8, 20)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)


def test_python_in_a_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    """Even where the family is known, whatever the files say."""
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass A: pass\n"
    (folder / "custom_generate").mkdir()
    for name in ("modeling.py", "configuration.py", "tokenization.py", "custom_generate/generate.py", "__init__.py"):
        (folder / name).write_text(code)
    maps = {"AutoConfig": "configuration.A", "AutoModelForCausalLM": "modeling.A"}
    change(folder / "config.json", auto_map=maps, custom_pipelines={"a": {"impl": "modeling.A"}})
    change(folder / "generation_config.json", custom_generate="custom_generate")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.A", "tokenization.A"]})
    load_model(folder)
    assert not (tmp_path / "ran").exists()
    assert "modeling" not in sys.modules


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../b.safetensors", "model.bin", 5])
def test_an_index_stays_in_its_folder(folder: Path, name: object) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder.parent / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(weights, name)}))
    with refused(BadModel, r"index.json names .*(inside its folder|no file of weights)"):
        load_model(folder)
