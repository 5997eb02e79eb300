"""Adapters of every kind that peft writes on the tiny Llama, tied or not, with biases or without, as files."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.conftest import WORDS, tiny_llama, word_tokenizer

IDS = torch.arange(8, 40)[None]
_QV = ["q_proj", "v_proj"]


def _lora(**options: Any) -> Callable[[], Any]:
    return lambda: LoraConfig(**({"r": 4, "target_modules": _QV, "task_type": "CAUSAL_LM"} | options))


def _of(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(peft, name)(**({"target_modules": _QV, "task_type": "CAUSAL_LM"} | options))


KINDS: dict[str, Callable[[], Any]] = {
    "lora": _lora(),
    "rslora": _lora(use_rslora=True, lora_alpha=16),
    "dora": _lora(use_dora=True),
    "patterns": _lora(rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 32}),
    "some layers": _lora(layers_to_transform=[1]),
    "all linear": _lora(target_modules="all-linear"),
    "head": _lora(target_modules=["q_proj", "lm_head"]),
    "embedding": _lora(target_modules=["q_proj", "embed_tokens"]),
    "head alone": _lora(target_modules=["lm_head"]),
    "saved embedding and head": _lora(modules_to_save=["embed_tokens", "lm_head"]),
    "saved head": _lora(modules_to_save=["lm_head"]),
    "saved norms": _lora(modules_to_save=["input_layernorm", "norm"]),
    "saved blocks": _lora(modules_to_save=["mlp"]),
    "trained tokens": _lora(trainable_token_indices={"embed_tokens": [7, 9, 20]}),
    "biases": _lora(lora_bias=True),
    "all biases": _lora(bias="all"),
    "pissa": _lora(init_lora_weights="pissa"),
    "olora": _lora(init_lora_weights="olora"),
    "orthogonal": _lora(init_lora_weights="orthogonal"),
    "ia3": _of("IA3Config", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "vera": _of("VeraConfig", r=8, target_modules=["q_proj"]),
    "loha": _of("LoHaConfig", r=4),
    "lokr": _of("LoKrConfig", r=4),
    "adalora": _of("AdaLoraConfig", init_r=4, target_r=2, total_step=10),
    "oft": _of("OFTConfig", oft_block_size=4, r=0),
    "boft": _of("BOFTConfig", boft_block_size=4),
    "hra": _of("HRAConfig", r=4),
    "fourier": _of("FourierFTConfig", n_frequency=20),
    "norms": _of("LNTuningConfig", target_modules=["input_layernorm"]),
    "final norm": _of("LNTuningConfig", target_modules=["norm"]),
    "tokens alone": _of("TrainableTokensConfig", token_indices=[7, 9], target_modules=["embed_tokens"]),
    "shira": _of("ShiraConfig", r=2),
}
"""Kinds that change the same model; what each needs is peft's affair."""


@contextmanager
def quiet_peft() -> Iterator[None]:
    """What peft warns of while a test makes an adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def plain_base(folder: Path, *, tied: bool, biased: bool) -> Path:
    """The tiny Llama in a folder."""
    model = tiny_llama(tie_word_embeddings=tied, attention_bias=biased, mlp_bias=biased)
    scatter(model, 0.02, seed=3)  # biases begin at zero
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def load_plain(base: Path) -> Any:
    """transformers' own load."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def scatter(model: torch.nn.Module, scale: float, *, seed: int, trained: bool = False) -> None:
    """Move every weight (every one that is trained) by some noise."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.is_floating_point() and (weight.requires_grad or not trained):
            weight.data += scale * torch.randn(weight.shape, generator=generator)


def save_kind(name: str, base: Path, folder: Path) -> torch.Tensor:
    """Put an adapter of a kind on `base`, move its weights, save it; the logits of peft's own fresh load of it."""
    with quiet_peft():
        torch.manual_seed(0)
        wrapped = get_peft_model(load_plain(base), KINDS[name]())
        scatter(wrapped, 0.05, seed=1, trained=True)
        wrapped.save_pretrained(folder)
        return logits(PeftModel.from_pretrained(load_plain(base), folder))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Logits of a few ids of the tiny vocabulary."""
    assert int(IDS.max()) < len(WORDS)
    said: torch.Tensor = model.eval()(input_ids=IDS).logits.float()
    return said
