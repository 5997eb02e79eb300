"""What the proofs at every load cost: CPU seconds of each, and the peak of memory beside peft's own load of the same adapter.

python benchmarks/load_cost.py BASE ADAPTER [--plain]

--plain: transformers' and peft's own load, for the memory beside which ours stands. One thread.
"""

import importlib
import resource
import sys
import time
from typing import Any

import torch

CHECKS = [
    ("mneme.models.pair", "probe_logits", "probe before the adapter, and with it switched off"),
    ("mneme.models.adapter_files", "probe_logits", "probe with the adapter, in the model and through peft"),
    ("mneme.models.pair", "find_parts", "proof of the parts, before and with the adapter"),
    ("mneme.models.reading", "require_finite", "every weight a number"),
    ("peft", "set_peft_model_state_dict", "tensors without a place"),
    ("mneme.models.tokenizers", "as_written", "tokenizer as tokenizer.json says"),
    ("mneme.models.pair", "_shared_tokenizer", "whole vocabularies compared"),
]
"""Where each is looked up, and what it is."""


def main(base: str, adapter: str, plain: bool) -> None:
    torch.set_num_threads(1)
    importlib.import_module("peft")
    before = peak()
    spent = {what: 0.0 for *_, what in CHECKS}
    if plain:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        wrapped = PeftModel.from_pretrained(model, adapter).eval()
        with torch.no_grad():
            wrapped(input_ids=torch.arange(24)[None], use_cache=False)
    else:
        from mneme.models.pair import load_pair

        for module, name, what in CHECKS:
            timed(module, name, what, spent)
        started = time.process_time()
        pair = load_pair(base, adapter)
        print(f"load_pair: {time.process_time() - started:.2f} CPU s, switched: {pair.adapter}")
        for what, seconds in spent.items():
            print(f"  {seconds:.3f}  {what}")
        print(f"  {sum(spent.values()):.2f}  together")
    print(f"peak memory {peak():.0f} MB ({before:.0f} MB before any model)")


def timed(module: str, name: str, what: str, spent: dict[str, float]) -> None:
    """Count the CPU seconds of a function under `what` from now on."""
    holder = importlib.import_module(module)
    function = getattr(holder, name)

    def counted(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **options)
        finally:
            spent[what] += time.process_time() - started

    setattr(holder, name, counted)


def peak() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--plain" in sys.argv)
