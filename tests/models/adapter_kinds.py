"""Adapters of every kind that peft writes on the tiny Llama, tied or not, with biases or without, as files."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig

from tests.conftest import WORDS, tiny_llama, word_tokenizer

IDS = torch.arange(8, 40)[None]
_QV = ["q_proj", "v_proj"]


def _lora(**options: Any) -> Callable[[], Any]:
    return lambda: LoraConfig(**({"r": 4, "target_modules": _QV, "task_type": "CAUSAL_LM"} | options))


def _of(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(peft, name)(**({"target_modules": _QV, "task_type": "CAUSAL_LM"} | options))


KINDS: dict[str, Callable[[], Any]] = {
    "LoRA": _lora(),
    "rsLoRA": _lora(use_rslora=True, lora_alpha=16),
    "DoRA": _lora(use_dora=True),
    "patterns of ranks and scales": _lora(
        rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 32}
    ),
    "some layers": _lora(layers_to_transform=[1]),
    "all linear layers": _lora(target_modules="all-linear"),
    "on the head too": _lora(target_modules=["q_proj", "lm_head"]),
    "on the embedding too": _lora(target_modules=["q_proj", "embed_tokens"]),
    "on the head alone": _lora(target_modules=["lm_head"]),
    "embedding and head saved": _lora(modules_to_save=["embed_tokens", "lm_head"]),
    "head saved": _lora(modules_to_save=["lm_head"]),
    "norms saved": _lora(modules_to_save=["input_layernorm", "norm"]),
    "feed-forward blocks saved": _lora(modules_to_save=["mlp"]),
    "trained tokens": _lora(trainable_token_indices={"embed_tokens": [7, 9, 20]}),
    "biases of its own (`lora_bias`)": _lora(lora_bias=True),
    "all biases trained": _lora(bias="all"),
    "PiSSA": _lora(init_lora_weights="pissa"),
    "OLoRA": _lora(init_lora_weights="olora"),
    "orthogonal start": _lora(init_lora_weights="orthogonal"),
    "IA3": _of("IA3Config", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "VeRA": _of("VeraConfig", r=8, target_modules=["q_proj"]),
    "LoHa": _of("LoHaConfig", r=4),
    "LoKr": _of("LoKrConfig", r=4),
    "AdaLoRA": _of("AdaLoraConfig", init_r=4, target_r=2, total_step=10),
    "OFT": _of("OFTConfig", oft_block_size=4, r=0),
    "BOFT": _of("BOFTConfig", boft_block_size=4),
    "HRA": _of("HRAConfig", r=4),
    "FourierFT": _of("FourierFTConfig", n_frequency=20),
    "LN-tuning": _of("LNTuningConfig", target_modules=["input_layernorm"]),
    "LN-tuning of the final norm": _of("LNTuningConfig", target_modules=["norm"]),
    "trained tokens alone": _of("TrainableTokensConfig", token_indices=[7, 9], target_modules=["embed_tokens"]),
    "SHiRA": _of("ShiraConfig", r=2),
    # starts, variants and places of LoRA
    "Gaussian start": _lora(init_lora_weights="gaussian"),
    "MiCA": _lora(init_lora_weights="mica"),
    "QA-LoRA": _lora(use_qalora=True, qalora_group_size=4),
    "block-diagonal LoRA": _lora(
        use_bdlora=BdLoraConfig(nblocks=2, target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"]),
    ),
    "MonteCLoRA": _lora(monteclora_config=MontecloraConfig()),
    "KaSA": _lora(kasa_config=KasaConfig()),
    "VeLoRA": _lora(velora_config=VeloraConfig()),
    "modules by a pattern": _lora(target_modules=r".*layers\.1\..*(q|v)_proj"),
    "modules left out": _lora(target_modules="all-linear", exclude_modules=["k_proj"]),
    "on parameters (`target_parameters`)": _lora(target_parameters=["q_proj.weight"], target_modules=["v_proj"]),
    "biases trained beside it": _lora(bias="lora_only"),
    "embedding tied to the head (`ensure_weight_tying`)": _lora(
        target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True
    ),
    "tied embedding saved": _lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "trained tokens, tied": _lora(trainable_token_indices=[7, 9], ensure_weight_tying=True),
    "DoRA on the embedding": _lora(use_dora=True, target_modules=["q_proj", "embed_tokens"]),
    "DoRA on the head": _lora(use_dora=True, target_modules=["q_proj", "lm_head"]),
    "attention saved": _lora(target_modules=["up_proj"], modules_to_save=["self_attn"]),
    "a whole layer saved": _lora(target_modules=["up_proj"], layers_to_transform=[0], modules_to_save=["layers.1"]),
    "norm and head saved": _lora(modules_to_save=["norm", "lm_head"]),
    # other kinds
    "IA3 on outputs": _of("IA3Config", target_modules=["down_proj"], feedforward_modules=[]),
    "VeRA without its matrices": _of("VeraConfig", r=8, target_modules=["q_proj"], save_projection=False),
    "PVeRA": _of("PveraConfig", r=8, target_modules=["q_proj"]),
    "VB-LoRA": _of("VBLoRAConfig", r=4, num_vectors=16, vector_length=8, target_modules=["q_proj"]),
    "VB-LoRA, largest weights only": _of(
        "VBLoRAConfig", r=4, num_vectors=16, vector_length=8, target_modules=["q_proj"], save_only_topk_weights=True
    ),
    "Uni-LoRA": _of("UniLoraConfig", r=4, theta_d_length=64),
    "RandLoRA": _of("RandLoraConfig", r=4),
    "TinyLoRA": _of("TinyLoraConfig", u=4),
    "GLoRA": _of("GloraConfig", r=4),
    "GraLoRA": _of("GraloraConfig", r=4, gralora_k=2),
    "DeLoRA": _of("DeloraConfig", r=4),
    "HiRA": _of("HiraConfig", r=4),
    "DEFT": _of("DeftConfig", r=4),
    "DEFT by QR": _of("DeftConfig", r=4, decomposition_method="qr"),
    "LoKr, both factors": _of("LoKrConfig", r=4, decompose_both=True),
    "OFT, exact inverse": _of("OFTConfig", oft_block_size=4, r=0, use_cayley_neumann=False),
    "OFT, one shared block": _of("OFTConfig", oft_block_size=4, r=0, block_share=True),
    "PSOFT": _of("PsoftConfig", r=4),
    "MiSS": _of("MissConfig", r=4),
    "MiSS (Bat)": _of("MissConfig", r=4, init_weights="bat"),
    "MiSS (mini)": _of("MissConfig", r=4, init_weights="mini", mini_r=2),
    "RoAd": _of("RoadConfig", group_size=4),
    "RoAd 4": _of("RoadConfig", group_size=4, variant="road_4"),
    "C3A": _of("C3AConfig", block_size=8),
    "WaveFT": _of("WaveFTConfig", n_frequency=20),
    "OSF": _of("OSFConfig", effective_rank=4),
    "FRoD": _of("FrodConfig", progressbar=False),
    "AdaMSS": _of("AdamssConfig", r=4, num_subspaces=2, subspace_rank=1),
    "PEANuT": _of("PeanutConfig", r=4),
    "Supertuning": _of("SupertuningConfig"),
    "Supertuning with LoRA": _of("SupertuningConfig", r=4),
    "BEFT": _of("BeftConfig"),
    "Lily": _of("LilyConfig", r=4),
    "ShadowPEFT": lambda: peft.ShadowConfig(r=4, task_type="CAUSAL_LM", shadow_num_hidden_layers=1),
    "LLaMA-Adapter": lambda: peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"),
}
"""Kinds that change the same model; what each needs is peft's affair."""
EDITING = {"PiSSA", "OLoRA", "KaSA", "all biases trained", "biases trained beside it"}
"""Kinds after whose loading the base is not what it was; trained biases only where there are some."""
NO_WEIGHTS = {"Lily", "ShadowPEFT", "LLaMA-Adapter", "BEFT"}
"""Kinds that change what modules say by more than a change of weights; a bias (BEFT) only where there is none."""
OF_BIASES = {"all biases trained", "biases trained beside it", "BEFT"}
"""Kinds whose outcome hangs on whether the base has biases."""
_TOKENS: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "activated LoRA (aLoRA)": (_lora(alora_invocation_tokens=[9, 10]), "acts only behind certain tokens"),
    "PiSSA by random numbers (`pissa_niter`)": (
        _lora(init_lora_weights="pissa_niter_2"),
        "which every load draws|drawn anew at every load",
    ),
    "PVeRA that samples": (
        _of("PveraConfig", r=8, target_modules=["q_proj"], sample_at_inference=True),
        "draws random numbers",
    ),
    "Poly": (_of("PolyConfig", r=4, n_tasks=2, n_skills=2), "cannot read plain text on its own"),
    "prefix tuning": (lambda: peft.PrefixTuningConfig(**_TOKENS), "prompt-tuning adapter"),
    "prompt tuning": (lambda: peft.PromptTuningConfig(**_TOKENS), "prompt-tuning adapter"),
    "P-tuning": (lambda: peft.PromptEncoderConfig(encoder_hidden_size=8, **_TOKENS), "prompt-tuning adapter"),
    "multitask prompt tuning": (lambda: peft.MultitaskPromptTuningConfig(num_tasks=2, **_TOKENS), "prompt-tuning adapter"),
    "CPT": (
        lambda: peft.CPTConfig(cpt_token_ids=[5, 6], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2], task_type="CAUSAL_LM"),
        "prompt-tuning adapter",
    ),
    "Cartridges": (lambda: peft.CartridgeConfig(num_frozen_tokens=1, **_TOKENS), "prompt-tuning adapter"),
}
"""Kinds that are no one change of the model, and what the sentence about them says."""


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


def save_refused(name: str, base: Path, folder: Path) -> None:
    """The file of a kind that is refused, trained a little."""
    with quiet_peft():
        torch.manual_seed(0)
        wrapped = get_peft_model(load_plain(base), REFUSED[name][0]())
        scatter(wrapped, 0.05, seed=1, trained=True)
        wrapped.save_pretrained(folder)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Logits of a few ids of the tiny vocabulary."""
    assert int(IDS.max()) < len(WORDS)
    said: torch.Tensor = model.eval()(input_ids=IDS).logits.float()
    return said
