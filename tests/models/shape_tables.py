"""The tables of docs/what-can-be-audited.md that the laws of models prove, made from what their tests run over.

`python -m tests.models.shape_tables` prints them.
"""

import sys
from collections.abc import Iterable

from peft import PeftType

from tests.models.adapter_kinds import EDITING, KINDS, NO_WEIGHTS, OF_BIASES, REFUSED, quiet_peft
from tests.models.checkpoint_shapes import READ
from tests.models.checkpoint_shapes import REFUSED as REFUSED_FOLDERS
from tests.models.test_law_architectures import DECODERS, WRAPPERS


def outcome(name: str, *, biased: bool) -> tuple[str, str]:
    """(how an adapter of a kind is held against its base, how it is read alone), as `check_kind` proves it."""
    depends = name in OF_BIASES
    two = name in EDITING and (biased or not depends)
    refused = name in NO_WEIGHTS and not (biased and depends)
    return "two models" if two else "one base, switched", "refused" if refused else "merged"


def adapter_table() -> str:
    """Kinds of adapters by what becomes of them; LoRA and others apart."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, make in KINDS.items():
        plain, biased = outcome(name, biased=False), outcome(name, biased=True)
        against, alone = (
            one if one == other else f"{one}; {other} where the base has biases"
            for one, other in zip(plain, biased, strict=True)
        )
        with quiet_peft():
            family = "LoRA" if make().peft_type == PeftType.LORA else "others"
        rows.setdefault((family, against, alone), []).append(name)
    lines = ["| adapters | against their base | alone |", "|---|---|---|"]
    lines += [f"| {_listed(names, family)} | {against} | {alone} |" for (family, against, alone), names in rows.items()]
    lines += [f"| {'; '.join(REFUSED)} | refused | refused |"]
    return "\n".join(lines) + "\n"


def _listed(names: Iterable[str], family: str) -> str:
    told = "; ".join(names)
    return f"LoRA and its variants: {told}" if family == "LoRA" else told


def checkpoint_table() -> str:
    """Folders by what becomes of them."""
    quiet = [name for name, (_, said) in READ.items() if not said]
    said = [name for name, (_, told) in READ.items() if told]
    lines = ["| folders | what mneme does |", "|---|---|"]
    lines += [f"| {'; '.join(quiet)} | read |", f"| {'; '.join(said)} | read, said |"]
    lines += [f"| {'; '.join(REFUSED_FOLDERS)} | refused, with what it is and what to do |"]
    return "\n".join(lines) + "\n"


def counts() -> str:
    """How much the tests run over, in sentences."""
    kinds, decoders, wrappers = len(KINDS), len(DECODERS), len(WRAPPERS)
    return (
        f"Tested: {kinds} kinds of adapters, each on four bases (head tied or not, with biases or without), "
        f"{4 * kinds} pairs;\n"
        f"{len(REFUSED)} kinds are refused. {len(READ)} forms of checkpoint folders are read, {len(REFUSED_FOLDERS)} refused. "
        f"{decoders} decoders with random\nweights, and {wrappers} models of pictures and text.\n"
    )


def architecture_list() -> str:
    """Names of transformers' model types, as tested."""
    return f"Decoders: {', '.join(DECODERS)}.\n\nModels of pictures and text: {', '.join(WRAPPERS)}.\n"


PARTS = (counts, adapter_table, checkpoint_table, architecture_list)

if __name__ == "__main__":
    sys.stdout.write("\n".join(part() for part in PARTS))
