"""Law: of every kind of adapter, what is read is what peft computes; BASE is BASE; the weight report is that of the merge."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mneme.errors import BrokenWeights, ModelMismatch, ModelNotFound, UnsupportedArchitecture
from mneme.models.matching import matched_tensors
from mneme.models.pair import ModelPair, load_model, load_pair
from mneme.models.weights import weight_changes
from tests.conftest import word_tokenizer
from tests.models.adapter_kinds import (
    IDS,
    KINDS,
    REFUSED,
    load_plain,
    logits,
    plain_base,
    quiet_peft,
    save_kind,
    save_refused,
    scatter,
)
from tests.models.shape_tables import outcome


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[bool, bool], Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        (tied, biased): plain_base(folder / f"{tied} {biased}", tied=tied, biased=biased)
        for tied in (True, False)
        for biased in (True, False)
    }


def said(pair: ModelPair, side: str) -> torch.Tensor:
    with torch.no_grad(), pair.using(side) as parts:  # type: ignore[arg-type]
        answer: torch.Tensor = parts.model(input_ids=IDS).logits
    return answer


def check_kind(name: str, base: Path, folder: Path, *, biased: bool) -> None:
    with quiet_peft():
        live, plain = save_kind(name, base, folder), logits(load_plain(base))
        assert (live - plain).abs().max() > 1e-3, "an adapter that changes nothing tests nothing"
        pair = load_pair(base, folder)
        changes = weight_changes(pair)
    against, read_alone = outcome(name, biased=biased)
    assert not changes.nothing
    for _ in range(2):  # reading the weights left the model as it was
        assert torch.equal(said(pair, "base"), plain)
        torch.testing.assert_close(said(pair, "tuned"), live, rtol=1e-4, atol=1e-4)
    assert pair.adapter == (against != "two models")
    assert pair.adapter or any("two models" in note for note in pair.notes)
    if read_alone == "refused":
        assert changes.changed == 0
        assert changes.others[-1] == "logits of a probe"
        with quiet_peft(), pytest.raises(UnsupportedArchitecture, match=r"cannot be merged into its base .*as TUNED"):
            load_model(folder, adapter_base=base)
        return
    with quiet_peft():
        alone = load_model(folder, adapter_base=base)
    torch.testing.assert_close(logits(alone.parts.model), live, rtol=1e-4, atol=1e-4)
    dense = load_model(base).parts
    moved, size, change = set(), 0.0, 0.0
    told: dict[int, float] = {}
    for name, before, after in matched_tensors(dense, alone.parts):
        step = float((after - before).detach().double().norm())
        if told.setdefault(before.data_ptr(), step) is not step and step in (0.0, told[before.data_ptr()]):
            continue  # tied in the base, and told already
        moved |= {name} if step else set()
        size, change = size + float(before.detach().double().square().sum()), change + step**2
    assert {tensor.name for tensor in changes.tensors if tensor.relative_change > 0} == moved
    assert changes.relative_change == pytest.approx((change / size) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(bases: dict[tuple[bool, bool], Path], tmp_path: Path, name: str) -> None:
    check_kind(name, bases[True, False], tmp_path, biased=False)


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "biased"), [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_on_every_base(
    bases: dict[tuple[bool, bool], Path], tmp_path: Path, name: str, tied: bool, biased: bool
) -> None:
    check_kind(name, bases[tied, biased], tmp_path, biased=biased)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_one_change_of_the_model_is_refused(
    bases: dict[tuple[bool, bool], Path], tmp_path: Path, name: str
) -> None:
    base = bases[True, False]
    save_refused(name, base, tmp_path)
    for load in (lambda: load_pair(base, tmp_path), lambda: load_model(tmp_path, adapter_base=base)):
        with quiet_peft(), pytest.raises(UnsupportedArchitecture, match=REFUSED[name][1]):
            load()


def edit(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("LoRA", {"target_modules": ["q_proj"]}, "v_proj"),
        ("LoRA", {"layers_to_transform": [0]}, r"layers\.1"),
        ("DoRA", {"use_dora": False}, "lora_magnitude_vector"),
        ("trained tokens", {"trainable_token_indices": None}, "trainable_tokens"),
        ("biases of its own (`lora_bias`)", {"lora_bias": False}, r"lora_B\.bias"),
        ("embedding and head saved", {"modules_to_save": None}, "embed_tokens|lm_head"),
    ],
)
def test_an_edited_configuration_is_refused_with_the_names(
    bases: dict[tuple[bool, bool], Path], tmp_path: Path, kind: str, changes: dict[str, object], named: str
) -> None:
    save_kind(kind, bases[True, False], tmp_path)
    edit(tmp_path, **changes)
    with quiet_peft(), pytest.raises(BrokenWeights, match=rf"(?s)holds .*({named}).*adapter_config.json"):
        load_pair(bases[True, False], tmp_path)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("base_model.model.", "base_model.model._orig_mod."),
        ("base_model.model.", "_orig_mod.base_model.model."),
        ("base_model.model.", "module.base_model.model."),
        ("base_model.model.model.", "base_model.model."),
        ("base_model.model.", ""),
        ("model.layers.", "model._fsdp_wrapped_module.layers."),
        ("base_model.model.model.", "base_model.model.model.language_model."),
    ],
)
def test_names_of_wrappers_come_off_and_are_said(
    bases: dict[tuple[bool, bool], Path], tmp_path: Path, pattern: str, replacement: str
) -> None:
    base = bases[True, False]
    live = save_kind("LoRA", base, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace(pattern, replacement, 1): tensor for name, tensor in load_file(file).items()}, file)
    before = file.read_bytes()
    pair = load_pair(base, tmp_path)
    assert torch.equal(said(pair, "tuned"), live)
    assert any("tensors" in note for note in pair.notes)
    assert file.read_bytes() == before


@pytest.mark.parametrize("trained", [True, False])
def test_an_embedding_saved_beside_a_lora(bases: dict[tuple[bool, bool], Path], tmp_path: Path, trained: bool) -> None:
    base = bases[True, False]
    with quiet_peft():
        wrapped = get_peft_model(load_plain(base), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        if trained:
            wrapped.get_input_embeddings().weight.data[11] += 0.3  # one row, which a probe need not meet
        wrapped.save_pretrained(tmp_path, save_embedding_layers=True)
        live = logits(PeftModel.from_pretrained(load_plain(base), tmp_path))
        pair = load_pair(base, tmp_path)
        changes = weight_changes(pair)
    assert torch.equal(said(pair, "base"), logits(load_plain(base)))
    torch.testing.assert_close(said(pair, "tuned"), live, rtol=1e-5, atol=1e-5)
    assert pair.adapter is not trained
    assert changes.nothing is not trained
    assert [t.name for t in changes.tensors if t.relative_change > 0] == ["model.embed_tokens.weight"] * trained


@pytest.mark.parametrize(
    "new", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}, {"trainable_token_indices": [92, 93]}], ids=str
)
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_with_added_tokens(
    bases: dict[tuple[bool, bool], Path], tmp_path: Path, tied: bool, new: dict[str, Any]
) -> None:
    base = bases[tied, False]
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    with quiet_peft():
        model = load_plain(base)
        model.resize_token_embeddings(len(tokenizer))
        wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **new))
        scatter(wrapped, 0.05, seed=2, trained=True)
        wrapped.save_pretrained(tmp_path)
        live = logits(wrapped)
        tokenizer.save_pretrained(tmp_path)
        pair = load_pair(base, tmp_path)
        changes = weight_changes(pair)
    rows = len(word_tokenizer())
    assert (pair.vocab_size, said(pair, "tuned").shape[-1], len(pair.tokenizer)) == (rows, rows, rows)
    assert torch.equal(said(pair, "base"), logits(load_plain(base)))
    torch.testing.assert_close(said(pair, "tuned"), live[..., :rows], rtol=1e-5, atol=1e-5)
    assert any("2 rows of vocabulary more" in note for note in pair.notes)
    assert not changes.nothing
    assert all(tensor.shape[0] <= rows for tensor in changes.tensors if "embed" in tensor.name or "head" in tensor.name)


def test_blocks_that_an_adapter_repeats(bases: dict[tuple[bool, bool], Path], tmp_path: Path) -> None:
    base = bases[True, False]
    with quiet_peft():
        config = LoraConfig(r=2, target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]], task_type="CAUSAL_LM")
        wrapped = get_peft_model(load_plain(base), config)
        scatter(wrapped, 0.05, seed=2, trained=True)
        wrapped.save_pretrained(tmp_path)
        torch.testing.assert_close(
            logits(load_model(tmp_path, adapter_base=base).parts.model), logits(wrapped), rtol=1e-4, atol=1e-4
        )
        with pytest.raises(ModelMismatch, match=r"model.layers.2.* is absent in BASE"):
            load_pair(base, tmp_path)


def test_an_adapter_without_its_kind_or_its_base(bases: dict[tuple[bool, bool], Path], tmp_path: Path) -> None:
    base = bases[True, False]
    live = save_kind("LoRA", base, tmp_path)
    edit(tmp_path, base_model_name_or_path="unsloth/some-4bit-copy")
    with pytest.raises(ModelNotFound, match=r"(?s)adapter of unsloth/some-4bit-copy, which is not at hand.*--base"):
        load_model(tmp_path)
    torch.testing.assert_close(logits(load_model(tmp_path, adapter_base=base).parts.model), live, rtol=1e-5, atol=1e-5)
    for name in ("owner/a-mirror", "/kaggle/working/llama", str(base).upper()):
        edit(tmp_path, base_model_name_or_path=name)
        assert any(f"was trained on {name}" in note for note in load_pair(base, tmp_path).notes)
    for kind in (None, ""):
        edit(tmp_path, peft_type=kind)
        with pytest.raises(BrokenWeights, match=r"does not say what kind of adapter.*Add \"peft_type\""):
            load_pair(base, tmp_path)


def test_a_merged_model_beside_which_its_adapter_was_left(bases: dict[tuple[bool, bool], Path], tmp_path: Path) -> None:
    base = bases[True, False]
    live = save_kind("LoRA", base, tmp_path / "adapter")
    with quiet_peft():
        PeftModel.from_pretrained(load_plain(base), tmp_path / "adapter").merge_and_unload().save_pretrained(
            tmp_path / "merged"
        )
    shutil.copy(tmp_path / "adapter" / "adapter_config.json", tmp_path / "merged")
    pair = load_pair(base, tmp_path / "merged")
    torch.testing.assert_close(said(pair, "tuned"), live, rtol=1e-4, atol=1e-4)
    shutil.copy(tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "merged")
    with pytest.raises(ModelNotFound, match=r"holds a model and an adapter, and which of them is meant"):
        load_pair(base, tmp_path / "merged")
