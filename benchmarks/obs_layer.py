"""Memory and time of `obs` on one Llama-shaped layer of width 2,048 with random weights, streamed from input to input.

Peak memory is that of the process over what it had before the two layers were made; allowed are three times the layer's
weights and its Hessian (the Grams of its four inputs on target and on retained text). The minutes are stated before the work
starts.

    python benchmarks/obs_layer.py
"""

import gc
import resource
import time
from pathlib import Path

import torch
from tables import markdown_table, write_section
from transformers import LlamaConfig, LlamaForCausalLM

from mneme.models.architecture import Parts
from mneme.repair.inputs import input_grams
from mneme.repair.obs import obs
from mneme.repair.plan import second_order_flops
from mneme.text.encoded import whole_text
from mneme.text.probes import Probe

WIDTH, INTERMEDIATE, TEXTS, TOKENS = 2048, 5632, 16, 128
GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
RATE = 20e9


def resident() -> int:
    """Bytes that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The most bytes that it ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def probe(seed: int) -> Probe:
    """Random token ids, all counted."""
    ids = torch.randint(0, 500, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(seed)).tolist()
    return Probe("random", ("",) * TEXTS, tuple(whole_text(row) for row in ids))


def layer_model() -> Parts:
    """A Llama of one block and a tiny vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=WIDTH,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=1,
        num_attention_heads=16,
        max_position_embeddings=TOKENS,
    )
    model = LlamaForCausalLM(config).eval()
    inner = model.model
    return Parts(model, inner, inner.embed_tokens, inner.layers, inner.norm, model.lm_head)


def linears(parts: Parts) -> dict[str, torch.nn.Linear]:
    """The seven linear maps by last name."""
    return {
        name.rpartition(".")[2]: module for name, module in parts.blocks.named_modules() if isinstance(module, torch.nn.Linear)
    }


def main() -> None:
    """Repair the layer at strength 0.5 and write the section."""
    torch.set_num_threads(1)
    torch.linalg.cholesky(torch.eye(64))  # loads LAPACK
    gc.collect()
    before = resident()
    base, tuned = layer_model(), layer_model()
    weights = sum(4 * layer.weight.numel() for layer in linears(tuned).values())
    hessian = sum(2 * 4 * linears(tuned)[names[0]].in_features ** 2 for names in GROUPS)
    for layer in linears(tuned).values():
        for row in layer.weight.data:
            row.add_(torch.randn(row.shape), alpha=1e-3)
    flops = second_order_flops([tuple(layer.weight.shape) for layer in linears(tuned).values()])  # type: ignore[misc]
    flops += 2 * len(GROUPS) * 2.0 * TEXTS * TOKENS * (weights / 4 + WIDTH**2)
    print(f"plan: {flops / 1e9:,.0f} GFLOP, about {flops / RATE / 60:.1f} min at 20 GFLOP/s", flush=True)
    started = time.perf_counter()
    own, first = linears(tuned), linears(base)
    for names in GROUPS:
        target = input_grams(base, probe(1), {name: first[name] for name in names}, batch_tokens=1)
        retain = input_grams(tuned, probe(2), {name: own[name] for name in names}, batch_tokens=1)
        for name in names:
            delta = own[name].weight.detach() - first[name].weight.detach()
            change = obs(delta, target[name], retain[name], 0.5, overwrite=name == names[-1])
            torch.add(first[name].weight.detach(), change, out=own[name].weight.data)
            del delta, change
        del target, retain
        print(f"{names}: {time.perf_counter() - started:.0f} s, peak {(peak() - before) / 1e6:.0f} MB", flush=True)
    seconds, used = time.perf_counter() - started, peak() - before
    allowed = 3 * weights + hessian
    rows = [
        ["weights of the layer", f"{weights / 1e6:.0f} MB"],
        ["its Hessian (four inputs, two texts)", f"{hessian / 1e6:.0f} MB"],
        ["peak memory, both layers, result and work", f"{used / 1e6:.0f} MB"],
        ["allowed: 3 x weights + Hessian", f"{allowed / 1e6:.0f} MB"],
        ["stated before the start", f"{flops / RATE / 60:.1f} min"],
        ["measured, one core", f"{seconds / 60:.1f} min"],
    ]
    write_section(
        "obs layer",
        "Repair: obs on one layer of width 2,048",
        "python benchmarks/obs_layer.py",
        f"{TEXTS * TOKENS:,} tokens of each text, MLP width {INTERMEDIATE:,}, float32.\n\n"
        + markdown_table(["what", "value"], rows),
    )
    print(f"peak {used / 1e6:.0f} MB of {allowed / 1e6:.0f} MB; {seconds:.0f} s")


if __name__ == "__main__":
    main()
