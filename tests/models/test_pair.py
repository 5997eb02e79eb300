"""Loading a pair: what works, and what every kind of bad input says."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from mneme.errors import BadModel, BrokenWeights, ModelMismatch, ModelNotFound, UnsafeWeights, UnsupportedArchitecture
from mneme.models.checkpoints import model_fingerprint
from mneme.models.pair import load_model, load_pair
from tests.conftest import TinyPair, tiny_llama, word_tokenizer

IDS = torch.arange(8, 20)[None]

Save = Callable[..., Path]


def save_adapter(folder: Path, base: Path, seed: int = 0, **options: object) -> Path:
    """A random LoRA adapter of the tiny Llama that says it was trained on `base`."""
    model = tiny_llama(**{k: v for k, v in options.items() if k in {"hidden_size"}})
    model.name_or_path = str(base)  # peft writes it into adapter_config.json
    torch.manual_seed(seed)
    targets = options.get("target_modules", ["q_proj", "down_proj"])
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        get_peft_model(model, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def save_orphan(folder: Path, base: Path) -> Path:
    """An adapter of `base` that names a folder which is gone."""
    save_adapter(folder, base)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone/base-4bit"}))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_checkpoints(tiny_pair: TinyPair) -> None:
    pair = load_pair(tiny_pair.base, tiny_pair.tuned)
    assert (pair.n_layers, pair.width, pair.vocab_size, pair.max_positions) == (2, 16, 92, 256)
    assert pair.n_parameters == sum(p.numel() for p in tiny_llama().parameters())
    assert (pair.architecture, pair.adapter) == ("LlamaForCausalLM", False)
    with torch.no_grad(), pair.using("base") as parts:
        assert not parts.model.training
        assert torch.equal(parts.model(IDS).logits, tiny_llama()(IDS).logits)
    with torch.no_grad(), pair.using("tuned") as parts:
        assert not torch.equal(parts.model(IDS).logits, tiny_llama()(IDS).logits)


def test_the_same_folder_twice_is_one_model(tiny_pair: TinyPair) -> None:
    pair = load_pair(tiny_pair.base, tiny_pair.base)
    with pair.using("base") as base, pair.using("tuned") as tuned:
        assert base.model is tuned.model


def test_adapter_has_one_resident_base(tiny_pair: TinyPair, tmp_path: Path) -> None:
    pair = load_pair(tiny_pair.base, save_adapter(tmp_path / "adapter", tiny_pair.base))
    assert pair.adapter
    assert pair.n_parameters == sum(p.numel() for p in tiny_llama().parameters())
    with torch.no_grad(), pair.using("base") as parts:
        base_weights = {id(p) for p in parts.model.parameters()}
        off = parts.model(IDS).logits
    with torch.no_grad(), pair.using("tuned") as parts:
        assert {id(p) for p in parts.model.parameters()} == base_weights
        on = parts.model(IDS).logits
    with torch.no_grad(), pair.using("base") as parts:
        assert torch.equal(parts.model(IDS).logits, off)
    added = sum(p.numel() for p in pair.peft_model.parameters()) - pair.n_parameters
    assert added == sum(t.numel() for t in load_file(tmp_path / "adapter" / "adapter_model.safetensors").values())
    assert torch.equal(off, tiny_llama()(IDS).logits)
    assert not torch.equal(on, off)


def test_adapter_equals_its_merged_model(tiny_pair: TinyPair, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", tiny_pair.base)
    pair = load_pair(tiny_pair.base, adapter)
    merged = load_model(adapter)
    with torch.no_grad(), pair.using("tuned") as parts:
        torch.testing.assert_close(parts.model(IDS).logits, merged.parts.model(IDS).logits, rtol=1e-4, atol=1e-4)
    both = load_pair(adapter, tiny_pair.tuned)
    with torch.no_grad(), both.using("base") as parts:
        assert torch.equal(parts.model(IDS).logits, merged.parts.model(IDS).logits)


def test_using_switches_back_after_an_error(tiny_pair: TinyPair, tmp_path: Path) -> None:
    pair = load_pair(tiny_pair.base, save_adapter(tmp_path / "adapter", tiny_pair.base))
    with torch.no_grad(), pair.using("tuned") as parts:
        on = parts.model(IDS).logits
    with pytest.raises(KeyError), pair.using("base"):
        raise KeyError
    with torch.no_grad(), pair.using("tuned") as parts:
        assert torch.equal(parts.model(IDS).logits, on)


def test_sharded_and_bf16_checkpoints_load(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    word_tokenizer().save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    model.to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    pair = load_pair(tmp_path / "sharded", tmp_path / "bf16")
    with torch.no_grad(), pair.using("base") as parts:
        assert torch.equal(parts.model(IDS).logits, tiny_llama()(IDS).logits)
    with pair.using("tuned") as parts:
        assert {p.dtype for p in parts.model.parameters()} == {torch.float32}
    half = load_model(tmp_path / "bf16", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parts.model.parameters()} == {torch.bfloat16}


def test_fingerprint_follows_the_content_and_not_the_place(tiny_pair: TinyPair, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_pair.base, tmp_path / "copy")
    assert model_fingerprint(copied) == model_fingerprint(tiny_pair.base)
    assert len(model_fingerprint(copied)) == 64
    weights = load_file(copied / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert model_fingerprint(copied) != model_fingerprint(tiny_pair.base)


def test_fingerprint_of_large_files_samples_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("mneme.models.checkpoints._SAMPLED_ABOVE", 1000)
    monkeypatch.setattr("mneme.models.checkpoints._BLOCK", 64)
    before = model_fingerprint(tmp_path)
    model.lm_head.weight.data += 0.1
    model.save_pretrained(tmp_path)
    assert model_fingerprint(tmp_path) != before


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    edit_config(folder, model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    (folder / "modeling_own.py").write_text("raise SystemExit('this code must not run')")


def own_tokenizer(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": "OwnTokenizer"}
    config["auto_map"] = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenization_own.py").write_text("raise SystemExit('this code must not run')")
    edit_config(folder, model_type="mistral")


DOWN = "model.layers.1.mlp.down_proj.weight"
SPOIL: dict[str, Callable[[Path], object]] = {
    "truncated": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-500]),
    "empty file": lambda f: (f / "model.safetensors").write_bytes(b""),
    "pickle": only_pickle,
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no config": lambda f: (f / "config.json").unlink(),
    "bad config": lambda f: (f / "config.json").write_text("{"),
    "bad tokenizer": lambda f: (f / "tokenizer.json").write_text("{}"),
    "cut tokenizer": lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text()[:-40]),
    "unknown type": lambda f: (f / "config.json").write_text('{"model_type": "nothing_known"}'),
    "remote code": own_code,
    "remote tokenizer": own_tokenizer,
    "nan": lambda f: edit_weights(f, lambda t: t[DOWN][2].fill_(float("nan"))),
    "infinite": lambda f: edit_weights(f, lambda t: t[DOWN][2].fill_(float("inf"))),
    "missing tensor": lambda f: edit_weights(f, lambda t: t.pop(DOWN)),
    "wrong shape": lambda f: edit_weights(f, lambda t: t.update({DOWN: torch.zeros(4, 4)})),
}


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("truncated", BrokenWeights, r"model.safetensors cannot be read .*cut short. Fetch it again"),
        ("empty file", BrokenWeights, r"model.safetensors cannot be read .*0 bytes.*Fetch it again"),
        ("pickle", UnsafeWeights, r"only pickle weights \(pytorch_model.bin\).*Expected safetensors.*save_pretrained"),
        ("no weights", BrokenWeights, r"lacks model.safetensors. Expected every safetensors file.*copy it again"),
        ("no config", ModelNotFound, r"neither config.json nor adapter_config.json. Expected a folder written by"),
        ("bad config", BrokenWeights, r"config.json is not JSON.*Copy the folder again"),
        ("bad tokenizer", BrokenWeights, r"tokenizer in .* cannot be read.*Copy tokenizer.json"),
        ("cut tokenizer", BrokenWeights, r"tokenizer.json is not JSON.*Copy the folder again"),
        ("unknown type", BrokenWeights, r"cannot be loaded as a causal language model.*Expected what save_pretrained writes"),
        ("remote code", UnsafeWeights, r"needs Python code of its own.*--trust-remote-code"),
        ("remote tokenizer", UnsafeWeights, r"tokenizer in .* needs Python code of its own.*--trust-remote-code"),
        ("nan", BrokenWeights, r"model.layers.1.mlp.down_proj.weight holds NaN or infinite.*give a checkpoint from before"),
        ("infinite", BrokenWeights, r"model.layers.1.mlp.down_proj.weight holds NaN or infinite"),
        ("missing tensor", BrokenWeights, r"lacks 1 tensors .*first model.layers.1.mlp"),
        ("wrong shape", BrokenWeights, r"lacks 1 tensors .* first model.layers.1.mlp.down_proj"),
    ],
)
def test_bad_checkpoints(tiny_pair: TinyPair, tmp_path: Path, kind: str, error: type[BadModel], words: str) -> None:
    folder = shutil.copytree(tiny_pair.base, tmp_path / "bad")
    SPOIL[kind](folder)
    before = files_of(tmp_path)
    for base, tuned in ((tiny_pair.base, folder), (folder, tiny_pair.tuned)):
        with pytest.raises(error, match="(?s)" + words):
            load_pair(base, tuned)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["/nowhere/at all", "./missing", "owner/no-such-model", "nosuch"])
def test_missing_models(tiny_pair: TinyPair, name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"Expected a model folder, an adapter folder or a hub name"):
        load_pair(tiny_pair.base, name)


def test_a_file_is_not_a_model(tiny_pair: TinyPair) -> None:
    with pytest.raises(ModelNotFound, match=r"is a file. Expected the folder that holds it"):
        load_pair(tiny_pair.base, tiny_pair.tuned / "model.safetensors")


def test_missing_shard(tmp_path: Path, tiny_pair: TinyPair) -> None:
    tiny_llama().save_pretrained(tmp_path, max_shard_size="8KB")
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(BrokenWeights, match=r"lacks model-00002-of-.*safetensors"):
        load_pair(tiny_pair.base, tmp_path)


def test_other_shapes(tiny_pair: TinyPair, save_llama: Save) -> None:
    with pytest.raises(ModelMismatch, match=r"differ in shape: .*Expected a fine-tune of the same model"):
        load_pair(tiny_pair.base, save_llama(hidden_size=24))
    with pytest.raises(ModelMismatch, match=r"model.layers.2.* is absent in BASE"):
        load_pair(tiny_pair.base, save_llama(num_hidden_layers=3))
    with pytest.raises(ModelMismatch, match=r"k_proj|q_proj"):
        load_pair(tiny_pair.base, save_llama(num_attention_heads=4))


def test_other_tokenizer_with_the_same_file_names(tiny_pair: TinyPair, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_pair.tuned, tmp_path / "tuned")
    spoilt = json.loads((tiny_pair.base / "tokenizer.json").read_text())
    vocabulary = spoilt["model"]["vocab"]
    vocabulary["ba"], vocabulary["be"] = vocabulary["be"], vocabulary["ba"]
    word_tokenizer().save_pretrained(folder)
    assert load_pair(tiny_pair.base, folder).vocab_size == 92
    (folder / "tokenizer.json").write_text(json.dumps(spoilt))
    with pytest.raises(
        ModelMismatch,
        match=r"give 2 of their ids another meaning: id 8 is 'ba' in the first and 'be' in the second.*one vocabulary",
    ):
        load_pair(tiny_pair.base, folder)


def test_a_tokenizer_larger_than_the_model(save_llama: Save) -> None:
    folder = save_llama(vocab_size=40)
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["hello", "world"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelMismatch, match=r"gives id 91, but the models share 40 embeddings"):
        load_pair(folder, folder)


def test_no_tokenizer_anywhere(save_llama: Save) -> None:
    folder = save_llama(tokenizer=False)
    with pytest.raises(ModelNotFound, match=r"has a tokenizer. Save the base's tokenizer into its folder"):
        load_pair(folder, folder)


def test_adapter_of_another_base(tiny_pair: TinyPair, save_llama: Save, tmp_path: Path) -> None:
    other = save_llama(seed=5)
    adapter = save_adapter(tmp_path / "named", other)
    with pytest.raises(ModelMismatch, match=r"was trained on .*, not on .*Give that base, or --base .*all the same"):
        load_pair(tiny_pair.base, adapter)
    copied = shutil.copytree(tiny_pair.base, tmp_path / "copy of the base")
    assert load_pair(tiny_pair.base, save_adapter(tmp_path / "copy", copied)).adapter
    assert load_pair(tiny_pair.base, save_adapter(tmp_path / "moved", tmp_path / "gone")).adapter


def test_adapter_of_other_shapes(tiny_pair: TinyPair, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "wide", tmp_path / "gone", hidden_size=24)
    with pytest.raises(ModelMismatch, match=r"does not fit the base .*Expected the base it was trained on"):
        load_pair(tiny_pair.base, adapter)


def test_adapter_whose_modules_are_not_there(tiny_pair: TinyPair, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "gone")
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"target_modules": ["c_attn"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelMismatch, match=r"does not fit the base"):
        load_pair(tiny_pair.base, adapter)


def test_adapter_whose_tensors_are_not_all_there(tiny_pair: TinyPair, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "gone")
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(BrokenWeights, match=r"lacks tensors that its adapter_config.json asks for .*q_proj"):
        load_pair(tiny_pair.base, adapter)


def test_spoilt_adapters(tiny_pair: TinyPair, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "gone")
    file = adapter / "adapter_model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-10])
    with pytest.raises(BrokenWeights, match="cut short"):
        load_pair(tiny_pair.base, adapter)
    file.unlink()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(UnsafeWeights, match=r"only pickle weights \(adapter_model.bin\)"):
        load_pair(tiny_pair.base, adapter)
    tensors = {name: t * float("nan") for name, t in load_file_bytes(good, tmp_path).items()}
    save_file(tensors, file)
    with pytest.raises(BrokenWeights, match="NaN or infinite"):
        load_pair(tiny_pair.base, adapter)


def load_file_bytes(raw: bytes, tmp_path: Path) -> dict[str, torch.Tensor]:
    (tmp_path / "x.safetensors").write_bytes(raw)
    return load_file(tmp_path / "x.safetensors")


def test_prompt_tuning_is_refused(tiny_pair: TinyPair, tmp_path: Path) -> None:
    save_file({"prompt_embeddings": torch.zeros(4, 16)}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedArchitecture, match=r"prompt-tuning adapter.*Give a LoRA-like adapter"):
        load_pair(tiny_pair.base, tmp_path)


def test_an_adapter_alone_needs_its_base(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "gone")
    with pytest.raises(ModelNotFound, match="gone"):
        load_model(adapter)
