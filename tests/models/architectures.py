"""Tiny random models of ten architectures, for tests."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB = 64
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "attention_dropout": 0.0,
}
SIZES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0, "sliding_window": 8},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "n_inner": 24},
    "gpt_neox": {"rotary_pct": 0.5, "hidden_dropout": 0.0},
    "phi": {"partial_rotary_factor": 0.5},
    "olmo2": {},
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2},
    # beyond the ten: a head with a constant factor, and a decoder one level deeper
    "cohere": {"logit_scale": 0.25},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
}


def random_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Three layers, width 16, 64 tokens, weights large enough that every block matters."""
    sizes = SIZES[name] if name == "gpt2" else _COMMON | SIZES[name]
    sizes = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | sizes
    torch.manual_seed(seed)
    config = AutoConfig.for_model(name, **sizes, initializer_range=0.3)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
