import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mneme.dictionaries.crosscoder import KINDS, Dictionary, Kind, decode_change, decoders, encode
from mneme.dictionaries.formats import export_saelens, load_dictionary, save_dictionary
from mneme.errors import BadOption, BrokenWeights


def random_dictionary(kind: Kind) -> Dictionary:
    generator = torch.Generator().manual_seed(1)
    width = 6 if kind == "change" else 12

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    scale = 0.5 + draw(width).abs()
    return Dictionary(kind, draw(width, 9), draw(9, width), draw(9), draw(width), 0.7, draw(width), scale, 0.25, 6, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_dictionary_comes_back_bit_by_bit(kind: Kind, tmp_path: Path) -> None:
    dictionary = random_dictionary(kind)
    save_dictionary(dictionary, tmp_path / "d")
    back = load_dictionary(tmp_path / "d")
    assert (back.kind, back.threshold, back.k, back.d_model, back.seed) == (kind, 0.7, 0.25, 6, 3)
    for name in ("w_enc", "w_dec", "b_enc", "b_dec", "mean", "scale"):
        assert torch.equal(getattr(back, name), getattr(dictionary, name))


def jumprelu(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """What SAELens computes from the files: codes and reconstruction."""
    assert json.loads((folder / "cfg.json").read_text())["architecture"] == "jumprelu"
    w = load_file(folder / "sae_weights.safetensors")
    codes = x @ w["W_enc"] + w["b_enc"]
    codes = torch.relu(codes) * (codes > w["threshold"])
    return codes, codes @ w["W_dec"] + w["b_dec"]


def test_the_exported_change_slice_reconstructs_raw_q(tmp_path: Path) -> None:
    dictionary = random_dictionary("change")
    q = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    export_saelens(dictionary, tmp_path, stream="change")
    codes = encode(dictionary, torch.zeros(50, 6), q)
    torch.testing.assert_close(jumprelu(tmp_path, q)[1], decode_change(dictionary, codes, 50), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["rotated", "batchtopk"])
def test_the_exported_tuned_slice_equals_the_crosscoder_where_the_models_agree(kind: Kind, tmp_path: Path) -> None:
    dictionary = random_dictionary(kind)
    h = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    export_saelens(dictionary, tmp_path, stream="tuned")
    codes = encode(dictionary, h * 2**0.5, torch.zeros(50, 6))
    dense = torch.zeros(50, 9).index_put_((codes.token_index, codes.latent_index), codes.value)
    torch.testing.assert_close(jumprelu(tmp_path, h)[0], dense, rtol=1e-4, atol=1e-4)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    torch.testing.assert_close(weights["W_dec"], decoders(dictionary)[:, 1])


def test_a_slice_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="change dictionary has no 'tuned' slice: expected 'change'"):
        export_saelens(random_dictionary("change"), tmp_path, stream="tuned")
    with pytest.raises(BadOption, match="expected 'base' or 'tuned'"):
        export_saelens(random_dictionary("delta"), tmp_path, stream="change")


def rewrite_cfg(folder: Path, **changed: object) -> None:
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kind": "__import__('os')"}, "not a mneme dictionary: kind"),
        ({"d_model": "6"}, "not a mneme dictionary: d_model"),
        ({"d_model": 7}, "expected torch.float32 of shape"),
        ({"n_latents": 10**12}, "expected torch.float32 of shape"),
        ({"threshold": -1.0}, "threshold not negative"),
        ({"k": float("nan")}, "not a mneme dictionary: "),
        ({"extra": 1}, "not a mneme dictionary: extra"),
        ({"schema_": "mneme.dictionary/2"}, "not a mneme dictionary: schema_"),
    ],
)
def test_a_hostile_cfg_is_refused(changed: dict, words: str, tmp_path: Path) -> None:
    save_dictionary(random_dictionary("change"), tmp_path)
    rewrite_cfg(tmp_path, **changed)
    with pytest.raises(BrokenWeights, match=words):
        load_dictionary(tmp_path)


def test_hostile_weights_are_refused(tmp_path: Path) -> None:
    save_dictionary(random_dictionary("change"), tmp_path)
    path = tmp_path / "dictionary.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)

    def refused(words: str) -> None:
        with pytest.raises(BrokenWeights, match=words):
            load_dictionary(tmp_path)

    path.write_bytes(whole[:-5])
    refused("not a whole safetensors file")
    path.write_bytes(b"\x80\x04pickle")
    refused("not a whole safetensors file")
    save_file({k: v for k, v in tensors.items() if k != "mean"}, path)
    refused("holds the tensors")
    save_file(tensors | {"w_dec": tensors["w_dec"].double()}, path)
    refused("`w_dec` is torch.float64")
    save_file(tensors | {"b_enc": tensors["b_enc"] * float("nan")}, path)
    refused("`b_enc` holds NaN")
    save_file(tensors | {"scale": -tensors["scale"]}, path)
    refused("`scale` must be positive")
    path.unlink()
    refused("does not exist")
    (tmp_path / "cfg.json").write_bytes(b"\xff\xfe not json")
    refused("not a mneme dictionary")
    (tmp_path / "cfg.json").unlink()
    refused("does not exist")
