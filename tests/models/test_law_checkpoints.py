"""Laws of checkpoint folders: every tensor has a place, ties may differ, vocabularies may differ at the end, "nothing changed"
is said of logits, quantized files are read by their library or refused with its name."""

import json
import shutil
from pathlib import Path

import gguf
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mneme.errors import LibraryMissing, ModelMismatch
from mneme.models.pair import ModelPair, load_model, load_pair
from mneme.models.weights import weight_changes
from tests.conftest import TinyPair, tiny_llama, word_tokenizer
from tests.models.adapter_kinds import IDS, load_plain, logits
from tests.models.checkpoint_shapes import READ, REFUSED, Tensors, rewrite


def said(pair: ModelPair, side: str) -> torch.Tensor:
    with torch.no_grad(), pair.using(side) as parts:  # type: ignore[arg-type]
        answer: torch.Tensor = parts.model(input_ids=IDS).logits
    return answer


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_the_model(tiny_pair: TinyPair, tmp_path: Path, name: str) -> None:
    make, words = READ[name]
    make(tiny_pair.tuned, tmp_path / "shape")
    pair = load_pair(tiny_pair.base, tmp_path / "shape")
    assert torch.equal(said(pair, "tuned"), logits(load_plain(tiny_pair.tuned)))
    assert any(words in note for note in pair.notes) if words else not pair.notes


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_model_is_refused_in_a_sentence(
    tiny_pair: TinyPair, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mneme.models.quantized.installed", lambda module: module == "gguf")
    make, error, words = REFUSED[name]
    make(tiny_pair.tuned, tmp_path / "shape")
    with pytest.raises(error, match=f"(?s){words}"):
        load_pair(tiny_pair.base, tmp_path / "shape")


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_ties_may_differ(tmp_path: Path, flag: bool, same: bool) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")

    def untied(tensors: Tensors) -> Tensors:
        head = tensors["model.embed_tokens.weight"] + (0 if same else 0.1 * torch.eye(92, 16))
        return tensors | {"lm_head.weight": head}

    folder = rewrite(tmp_path / "base", tmp_path / "tuned", untied, tie_word_embeddings=flag)
    pair = load_pair(tmp_path / "base", folder)
    assert torch.equal(said(pair, "tuned"), logits(load_plain(folder)))
    changes = weight_changes(pair)
    assert changes.nothing is same
    assert [t.name for t in changes.tensors if t.relative_change > 0] == ["lm_head.weight"] * (not same)


@pytest.mark.parametrize("rows", [94, 128])
@pytest.mark.parametrize("smaller", ["base", "tuned"])
def test_vocabularies_may_differ_at_the_end(tiny_pair: TinyPair, tmp_path: Path, rows: int, smaller: str) -> None:
    torch.manual_seed(0)
    model = load_plain(tiny_pair.tuned)
    whole = logits(model)
    model.resize_token_embeddings(rows)
    model.save_pretrained(tmp_path)
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    pair = load_pair(*((tiny_pair.base, tmp_path) if smaller == "base" else (tmp_path, tiny_pair.base)))
    larger = "tuned" if smaller == "base" else "base"
    assert pair.vocab_size == said(pair, "base").shape[-1] == said(pair, "tuned").shape[-1] == 92
    assert torch.equal(said(pair, larger), whole)
    assert any(f"{rows - 92} rows of vocabulary more" in note for note in pair.notes)
    before = weight_changes(load_pair(tiny_pair.base, tiny_pair.tuned))
    if smaller == "base":
        assert weight_changes(pair) == before


def swap(folder: Path, one: str, other: str) -> None:
    spoilt = json.loads((folder / "tokenizer.json").read_text())
    words = spoilt["model"]["vocab"]
    words[one], words[other] = words[other], words[one]
    (folder / "tokenizer.json").write_text(json.dumps(spoilt))


@pytest.mark.parametrize(("one", "other"), [("ba", "be"), ("ten", "tun"), ("tan", "do"), ("sen", "si")])
def test_two_swapped_words_anywhere_are_refused(tiny_pair: TinyPair, tmp_path: Path, one: str, other: str) -> None:
    folder = shutil.copytree(tiny_pair.tuned, tmp_path / "tuned")
    word_tokenizer().save_pretrained(folder)
    if other not in word_tokenizer().get_vocab() or one not in word_tokenizer().get_vocab():
        other, one = "do", "ga"
    swap(folder, one, other)
    with pytest.raises(
        ModelMismatch, match=r"2 of their ids another meaning: id \d+ is '\w+' in the first and '\w+' in the second"
    ):
        load_pair(tiny_pair.base, folder)


def test_a_tokenizer_that_transformers_rebuilds_otherwise(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=92, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    text = "ba be di do gan"
    loaded = load_model(tmp_path).tokenizer
    assert loaded is not None
    assert loaded(text)["input_ids"] == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 0.5), ("rope_parameters", {"rope_theta": 50.0, "rope_type": "default"}), ("hidden_act", "relu")],
)
def test_equal_tensors_with_other_settings_are_a_change(tiny_pair: TinyPair, tmp_path: Path, key: str, value: object) -> None:
    folder = rewrite(tiny_pair.base, tmp_path / "edited", dict, **{key: value})
    changes = weight_changes(load_pair(tiny_pair.base, folder))
    assert changes.changed == 0
    assert not changes.nothing
    assert {f"setting {key}", "logits of a probe"} <= set(changes.others)


@pytest.mark.parametrize(
    ("key", "value"), [("use_cache", False), ("initializer_range", 1.0), ("eos_token_id", 5), ("dtype", "bfloat16")]
)
def test_settings_without_a_part_in_the_logits_are_none(tiny_pair: TinyPair, tmp_path: Path, key: str, value: object) -> None:
    folder = rewrite(tiny_pair.base, tmp_path / "edited", dict, **{key: value})
    assert weight_changes(load_pair(tiny_pair.base, folder)).nothing


def write_gguf(model: torch.nn.Module, file: Path) -> None:
    """A Llama as llama.cpp stores it, in float32: rows of queries and keys in its order, a word-level vocabulary."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(92)
    tokens = sorted(word_tokenizer().get_vocab(), key=word_tokenizer().get_vocab().get)  # type: ignore[arg-type]
    tokens[-2:] = ["b", "a"]  # of which the one merge is made
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["b a"])
    writer.add_eos_token_id(3)
    writer.add_bos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        heads = {"q_proj": 2, "k_proj": 1}.get(name.split(".")[-2])
        if heads:
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_read_by_its_library(tiny_pair: TinyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model-F32.gguf"
    write_gguf(load_plain(tiny_pair.tuned), file)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name)
    for source in (file, tmp_path):
        parts = load_model(source).parts
        assert torch.equal(logits(parts.model), logits(expected))
    torch.testing.assert_close(logits(parts.model), logits(load_plain(tiny_pair.tuned)), rtol=1e-4, atol=1e-4)
    parts.model.save_pretrained(tmp_path / "plain")
    monkeypatch.setattr("mneme.models.quantized.installed", lambda _module: False)
    with pytest.raises(LibraryMissing, match="pip install gguf"):
        load_model(file)
