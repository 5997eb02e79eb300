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
    # starts, variants and places of LoRA
    "gaussian": _lora(init_lora_weights="gaussian"),
    "mica": _lora(init_lora_weights="mica"),
    "qalora": _lora(use_qalora=True, qalora_group_size=4),
    "bdlora": _lora(
        use_bdlora=BdLoraConfig(nblocks=2, target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"]),
    ),
    "monteclora": _lora(monteclora_config=MontecloraConfig()),
    "kasa": _lora(kasa_config=KasaConfig()),
    "velora": _lora(velora_config=VeloraConfig()),
    "pattern of names": _lora(target_modules=r".*layers\.1\..*(q|v)_proj"),
    "excluded modules": _lora(target_modules="all-linear", exclude_modules=["k_proj"]),
    "parameters": _lora(target_parameters=["q_proj.weight"], target_modules=["v_proj"]),
    "biases beside": _lora(bias="lora_only"),
    "tied embedding": _lora(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True),
    "saved tied embedding": _lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "trained tied tokens": _lora(trainable_token_indices=[7, 9], ensure_weight_tying=True),
    "dora on the embedding": _lora(use_dora=True, target_modules=["q_proj", "embed_tokens"]),
    "dora on the head": _lora(use_dora=True, target_modules=["q_proj", "lm_head"]),
    "saved attention": _lora(target_modules=["up_proj"], modules_to_save=["self_attn"]),
    "saved layer": _lora(target_modules=["up_proj"], layers_to_transform=[0], modules_to_save=["layers.1"]),
    "saved norm and head": _lora(modules_to_save=["norm", "lm_head"]),
    # other kinds
    "ia3 on inputs and outputs": _of("IA3Config", target_modules=["down_proj"], feedforward_modules=[]),
    "vera without its matrices": _of("VeraConfig", r=8, target_modules=["q_proj"], save_projection=False),
    "pvera": _of("PveraConfig", r=8, target_modules=["q_proj"]),
    "vblora": _of("VBLoRAConfig", r=4, num_vectors=16, vector_length=8, target_modules=["q_proj"]),
    "vblora, largest weights": _of(
        "VBLoRAConfig", r=4, num_vectors=16, vector_length=8, target_modules=["q_proj"], save_only_topk_weights=True
    ),
    "unilora": _of("UniLoraConfig", r=4, theta_d_length=64),
    "randlora": _of("RandLoraConfig", r=4),
    "tinylora": _of("TinyLoraConfig", u=4),
    "glora": _of("GloraConfig", r=4),
    "gralora": _of("GraloraConfig", r=4, gralora_k=2),
    "delora": _of("DeloraConfig", r=4),
    "hira": _of("HiraConfig", r=4),
    "deft": _of("DeftConfig", r=4),
    "deft, qr": _of("DeftConfig", r=4, decomposition_method="qr"),
    "lokr, both": _of("LoKrConfig", r=4, decompose_both=True),
    "oft, exact": _of("OFTConfig", oft_block_size=4, r=0, use_cayley_neumann=False),
    "oft, one block": _of("OFTConfig", oft_block_size=4, r=0, block_share=True),
    "psoft": _of("PsoftConfig", r=4),
    "miss": _of("MissConfig", r=4),
    "miss, bat": _of("MissConfig", r=4, init_weights="bat"),
    "miss, mini": _of("MissConfig", r=4, init_weights="mini", mini_r=2),
    "road": _of("RoadConfig", group_size=4),
    "road, 4": _of("RoadConfig", group_size=4, variant="road_4"),
    "c3a": _of("C3AConfig", block_size=8),
    "waveft": _of("WaveFTConfig", n_frequency=20),
    "osf": _of("OSFConfig", effective_rank=4),
    "frod": _of("FrodConfig", progressbar=False),
    "adamss": _of("AdamssConfig", r=4, num_subspaces=2, subspace_rank=1),
    "peanut": _of("PeanutConfig", r=4),
    "supertuning": _of("SupertuningConfig"),
    "supertuning, lora": _of("SupertuningConfig", r=4),
    "beft": _of("BeftConfig"),
    "lily": _of("LilyConfig", r=4),
    "shadow": lambda: peft.ShadowConfig(r=4, task_type="CAUSAL_LM", shadow_num_hidden_layers=1),
    "adaption prompt": lambda: peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"),
}
"""Kinds that change the same model; what each needs is peft's affair."""
EDITING = {"pissa", "olora", "kasa", "all biases", "biases beside"}
"""Kinds after whose loading the base is not what it was; trained biases only where there are some."""
NO_WEIGHTS = {"lily", "shadow", "adaption prompt", "beft"}
"""Kinds that change what modules say by more than a change of weights; a bias (BEFT) only where there is none."""
OF_BIASES = {"all biases", "biases beside", "beft"}
"""Kinds whose outcome hangs on whether the base has biases."""
_TOKENS: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "alora": (_lora(alora_invocation_tokens=[9, 10]), "acts only behind certain tokens"),
    "pissa by random numbers": (_lora(init_lora_weights="pissa_niter_2"), "which every load draws|drawn anew at every load"),
    "pvera, sampled": (_of("PveraConfig", r=8, target_modules=["q_proj"], sample_at_inference=True), "draws random numbers"),
    "poly": (_of("PolyConfig", r=4, n_tasks=2, n_skills=2), "cannot read plain text on its own"),
    "prefix tuning": (lambda: peft.PrefixTuningConfig(**_TOKENS), "prompt-tuning adapter"),
    "prompt tuning": (lambda: peft.PromptTuningConfig(**_TOKENS), "prompt-tuning adapter"),
    "p-tuning": (lambda: peft.PromptEncoderConfig(encoder_hidden_size=8, **_TOKENS), "prompt-tuning adapter"),
    "multitask prompt tuning": (lambda: peft.MultitaskPromptTuningConfig(num_tasks=2, **_TOKENS), "prompt-tuning adapter"),
    "cpt": (
        lambda: peft.CPTConfig(cpt_token_ids=[5, 6], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2], task_type="CAUSAL_LM"),
        "prompt-tuning adapter",
    ),
    "cartridge": (lambda: peft.CartridgeConfig(num_frozen_tokens=1, **_TOKENS), "prompt-tuning adapter"),
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
