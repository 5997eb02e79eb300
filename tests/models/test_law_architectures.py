"""Laws of architectures: both sides of a pair say what transformers says, whatever the blocks are made of; language models
inside models of pictures and text are read as such; encoder-decoders are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from mneme.errors import ModelMismatch, UnsupportedArchitecture
from mneme.models.architecture import lens
from mneme.models.hooks import read_residuals
from mneme.models.pair import load_pair
from mneme.models.weights import weight_changes
from tests.conftest import word_tokenizer
from tests.models.adapter_kinds import quiet_peft, scatter

IDS = torch.arange(24)[None] * 5 % 64
_S: dict[str, Any] = {
    **{"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
_HEAD = {"head_dim": 8}
_SSM = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
_HYBRID = _S | _HEAD | {"layer_types": ["linear_attention", "full_attention"]}
_LATENT = {
    **{"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "head_dim": 4},
    **{"num_key_value_heads": 2, "first_k_dense_replace": 1, "moe_intermediate_size": 16},
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": _S,
    "qwen2": _S,
    "qwen3": _S | _HEAD,
    "mistral": _S | {"sliding_window": 8},
    "ministral": _S | _HEAD,
    "gemma": _S | _HEAD,
    "gemma2": _S | _HEAD | {"sliding_window": 8, "final_logit_softcapping": 30.0},
    "gemma3_text": _S | _HEAD | {"sliding_window": 8},
    "phi": _S,
    "phi3": _S,
    "olmo": _S,
    "olmo2": _S,
    "granite": _S | {"logits_scaling": 8.0},
    "cohere": _S,
    "cohere2": _S | {"sliding_window": 8},
    "stablelm": _S,
    "starcoder2": _S,
    "nemotron": _S,
    "helium": _S | _HEAD,
    "smollm3": _S,
    "glm": _S | _HEAD,
    "glm4": _S | _HEAD,
    "exaone4": _S,
    "seed_oss": _S | _HEAD,
    "arcee": _S,
    "apertus": _S,
    "falcon": {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt_neox": {k: v for k, v in _S.items() if k != "num_key_value_heads"},
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gptj": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "n_positions": 64},
    "opt": _S | {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "opt with projections": _S | {"ffn_dim": 32, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
    "bloom": {"vocab_size": 64, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "mpt": {"vocab_size": 64, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
    "mamba": _SSM,
    "falcon_mamba": _SSM,
    "mamba2": _SSM | {"num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "rwkv": {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16},
    "recurrent_gemma": {
        **{"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
        **{"lru_width": 16, "attention_window_size": 8},
    },
    "lfm2": _S | {"layer_types": ["conv", "full_attention"]},
    "mixtral": _S | {"num_local_experts": 4},
    "qwen3_moe": _S | _HEAD | _EXPERTS,
    "olmoe": _S | {"num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": _S | _HEAD | _MIXED | {"num_local_experts": 4},
    "olmo3": _S | {"sliding_window": 8},
    "olmo_hybrid": _HYBRID,
    "flex_olmo": _S | _EXPERTS,
    "cwm": _S | _HEAD,
    "ministral3": _S | _HEAD,
    "vaultgemma": _S | _HEAD | {"sliding_window": 8},
    "bitnet": _S,
    "doge": _S,
    "nanochat": _S,
    "jais2": _S | _HEAD,
    "ernie4_5": _S | _HEAD,
    "hunyuan_v1_dense": _S | _HEAD,
    "persimmon": _S,
    "biogpt": _S,
    "xglm": {
        "vocab_size": 64,
        "d_model": 16,
        "num_layers": 2,
        "attention_heads": 2,
        "ffn_dim": 32,
        "max_position_embeddings": 64,
    },
    "xlm": {"vocab_size": 64, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
    "ctrl": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "dff": 32, "n_positions": 64},
    "gpt_bigcode": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neo": {
        **{"vocab_size": 64, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 64},
        **{"attention_types": [[["global", "local"], 1]], "window_size": 8},
    },
    "gpt_neox_japanese": {k: v for k, v in _S.items() if k != "num_key_value_heads"},
    "codegen": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "qwen2_moe": _S | _EXPERTS | {"shared_expert_intermediate_size": 16},
    "ernie4_5_moe": _S | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
    "phimoe": _S | {"num_local_experts": 4},
    "granitemoe": _S | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": _S | _HEAD | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "dots1": _S
    | _HEAD
    | {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "n_shared_experts": 1,
        "topk_group": 1,
    },
    "minimax_m2": _S | _HEAD | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": _S | _HEAD | {"intermediate_size_mlp": 32, "num_local_experts": 2},
    "jetmoe": _S | {"num_local_experts": 4, "kv_channels": 8},
    "deepseek_v2": _S | _LATENT | {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": _S | _LATENT | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "jamba": _S
    | {**{"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}, "mamba_d_state": 4},
    "bamba": _S
    | {**{"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8}, "mamba_d_state": 4, "mamba_n_groups": 1},
    "falcon_h1": _S | {**{"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8}, "mamba_d_state": 4, "mamba_n_groups": 1},
    "qwen3_next": _HYBRID
    | _EXPERTS
    | {"shared_expert_intermediate_size": 16, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    | {"linear_value_head_dim": 8},
    "minimax": _HYBRID | {"num_local_experts": 2},
}


def save_twice(model: Any, folder: Path) -> tuple[Path, Path]:
    """A model and the same with every weight moved a little, each with a tokenizer."""
    for name in ("base", "tuned"):
        if name == "tuned":
            scatter(model, 0.01, seed=1)
        model.save_pretrained(folder / name)
        word_tokenizer(64).save_pretrained(folder / name)
    return folder / "base", folder / "tuned"


def random_decoder(name: str) -> Any:
    torch.manual_seed(0)
    kind = name.split(" ")[0]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **DECODERS[name])).eval()


@torch.no_grad()
def check_sides(base: Path, tuned: Path, library: Any) -> None:
    """Both sides against transformers' fresh load, and the last residual stream through norm and head against the logits."""
    with quiet_peft():
        pair = load_pair(base, tuned)
        for side, folder in (("base", base), ("tuned", tuned)):
            expected = library.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=IDS).logits
            with pair.using(side) as parts:  # type: ignore[arg-type]
                torch.testing.assert_close(parts.model(input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5)
                last = read_residuals(parts, IDS, [pair.n_layers - 1])[pair.n_layers - 1]
                torch.testing.assert_close(lens(parts, last[0]), expected[0], rtol=1e-3, atol=1e-3)
        assert weight_changes(pair).changed > 0


_QUICK = ("qwen2", "gemma2", "opt with projections", "mamba", "rwkv", "recurrent_gemma", "mixtral", "gpt2", "nanochat")
"""One of each kind of block and ending, in every run; the others in the long one."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in DECODERS])
def test_every_decoder(tmp_path: Path, name: str) -> None:
    with quiet_peft():
        base, tuned = save_twice(random_decoder(name), tmp_path)
    check_sides(base, tuned, AutoModelForCausalLM)


_TEXT = {k: v for k, v in _S.items() if k != "vocab_size"} | {"vocab_size": 64}
_EYE = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28},
    "patch_size": 14,
}
_ROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
_MARKS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
WRAPPERS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": _TEXT | _HEAD | {"sliding_window": 8},
        "vision_config": _EYE,
        "mm_tokens_per_image": 4,
        "image_token_index": 60,
    },
    "llava": {
        "text_config": _TEXT | {"model_type": "llama"},
        "vision_config": _EYE | {"model_type": "clip_vision_model", "projection_dim": 16},
        "image_token_index": 60,
    },
    "mistral3": {
        "text_config": _TEXT | {"model_type": "mistral"},
        "vision_config": _EYE | {"model_type": "pixtral"},
        "image_token_index": 60,
    },
    "qwen2_vl": {
        "text_config": _TEXT | _ROPE,
        "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
        **_MARKS,
    },
    "qwen2_5_vl": {
        "text_config": _TEXT | _ROPE,
        "vision_config": {
            **{
                "depth": 2,
                "hidden_size": 16,
                "out_hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 32,
                "patch_size": 14,
            },
            "fullatt_block_indexes": [1],
        },
        **_MARKS,
    },
}


def random_wrapper(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(name, **WRAPPERS[name])).eval()


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_language_model_in_a_wrapper(tmp_path: Path, name: str) -> None:
    with quiet_peft():
        base, tuned = save_twice(random_wrapper(name), tmp_path)
    check_sides(base, tuned, AutoModelForImageTextToText)


@pytest.mark.parametrize("name", WRAPPERS)
@torch.no_grad()
def test_a_lora_made_on_a_wrapper(tmp_path: Path, name: str) -> None:
    with quiet_peft():
        base, _ = save_twice(random_wrapper(name), tmp_path)
        config = LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)")
        wrapped = get_peft_model(AutoModelForImageTextToText.from_pretrained(base), config)
        scatter(wrapped, 0.1, seed=2, trained=True)
        wrapped.save_pretrained(tmp_path / "lora")
        live = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), tmp_path / "lora").eval()
        pair = load_pair(base, tmp_path / "lora")
        with pair.using("tuned") as parts:
            torch.testing.assert_close(parts.model(input_ids=IDS).logits, live(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
        assert weight_changes(pair).changed == 4


@pytest.mark.parametrize(
    ("name", "text"), [("gemma3", "Gemma3ForCausalLM"), ("llava", "LlamaForCausalLM"), ("mistral3", "MistralForCausalLM")]
)
@torch.no_grad()
def test_a_wrapper_against_the_text_only_model(tmp_path: Path, name: str, text: str) -> None:
    with quiet_peft():
        wrapper = random_wrapper(name)
        base, _ = save_twice(wrapper, tmp_path)
        wrapper = AutoModelForImageTextToText.from_pretrained(base).eval()
        alone = getattr(transformers, text)(wrapper.config.get_text_config()).eval()
        alone.model.load_state_dict(wrapper.model.language_model.state_dict())
        alone.lm_head.load_state_dict(wrapper.lm_head.state_dict())
        alone.save_pretrained(tmp_path / "same")
        scatter(alone, 0.01, seed=4)
        alone.save_pretrained(tmp_path / "alone")
        same, pair = load_pair(base, tmp_path / "same"), load_pair(base, tmp_path / "alone")
    assert weight_changes(same).changed == 0
    assert any("pictures" in note for note in pair.notes)
    with pair.using("tuned") as parts:
        torch.testing.assert_close(parts.model(input_ids=IDS).logits, alone(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    changes = weight_changes(pair)
    assert changes.changed == changes.total


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoders_are_refused_as_such(tmp_path: Path, kind: str) -> None:
    sizes = {"vocab_size": 64, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    if kind == "bart":
        sizes = {"vocab_size": 64, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 16}
        sizes |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    transformers.AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedArchitecture, match=r"encoder-decoder .*decoder-only"):
        load_pair(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("bert", "does not read token ids"), ("bert-generation", "does not read token ids"), ("openai-gpt", "returned list")],
)
def test_what_is_no_decoder_says_which_property_is_missing(tmp_path: Path, kind: str, reason: str) -> None:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 64} if kind == "openai-gpt" else _S
    with quiet_peft():
        base, _ = save_twice(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval(), tmp_path)
        with pytest.raises(UnsupportedArchitecture, match=f"passes the proof .*{reason}"):
            load_pair(base, base)


def test_two_architectures_are_no_pair(tmp_path: Path) -> None:
    one, _ = save_twice(random_decoder("llama"), tmp_path / "llama")
    other, _ = save_twice(random_decoder("gpt2"), tmp_path / "gpt2")
    with pytest.raises(ModelMismatch, match=r"absent in (BASE|TUNED)"):
        load_pair(one, other)
