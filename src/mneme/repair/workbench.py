"""One pair laid out for repair: the change of every linear map, and a working copy whose weights can be set.

Linear maps are the nn.Linear modules of the blocks. Everything else that a full fine-tune changed (embeddings, norms, biases,
fused experts) follows the strength on a straight line, as `scale` does. An adapter is materialised map by map, never as a
whole. Memory: base, tuned and the working copy (with an adapter: base and working copy), in the dtype they were loaded in.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mneme.errors import BadOption, NothingToRepair, UnsupportedArchitecture
from mneme.models.architecture import Parts, find_parts
from mneme.models.pair import ModelPair
from mneme.models.writers import residual_writers


@dataclass
class Workbench:
    """The parts of a repair. `work` begins as the tuned model, adapter merged; `restore` makes it the tuned model again."""

    pair: ModelPair
    work: Parts
    names: tuple[str, ...]
    """Linear maps that changed, in the order of the blocks."""
    block: dict[str, int]
    """Block that each belongs to."""
    _original: dict[str, Tensor] = field(repr=False)
    _others: dict[str, tuple[Tensor, Tensor]] = field(repr=False)

    @cached_property
    def writers(self) -> frozenset[str]:
        """The linear maps that write to the residual stream, whether they changed or not."""
        return frozenset(name for block in residual_writers(self.work) for name in block)

    def delta(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """W_tuned - W_base of one linear map, float32."""
        if self.pair.adapter:
            layer = self.pair.peft_model.get_base_model().get_submodule(name)
            change: Tensor = layer.get_delta_weight(self.pair.peft_model.active_adapter).detach().float()
            return change
        base = self.pair.base_parts.model.get_submodule(name).weight
        tuned = self.pair.tuned_parts.model.get_submodule(name).weight
        difference: Tensor = tuned.detach().float() - base.detach().float().to(tuned.device)
        return difference

    def base_weight(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """W_base of one linear map, in its own dtype."""
        layer = self.pair.base_parts.model.get_submodule(name)
        weight: Tensor = (layer.get_base_layer() if self.pair.adapter else layer).weight
        return weight.detach()

    def set(self, name: str, delta: Float[Tensor, "d_out d_in"]) -> None:
        """Let the working copy have W_base + `delta` at one linear map."""
        weight = self.work.model.get_submodule(name).weight
        base = self.base_weight(name).to(weight.device)
        weight.data.copy_((base.float() + delta.to(weight.device, torch.float32)).to(weight.dtype))

    def set_weight(self, name: str, weight: Float[Tensor, "d_out d_in"]) -> None:
        """Let the working copy have exactly this weight at one linear map."""
        self.work.model.get_submodule(name).weight.data.copy_(weight)

    def set_others(self, strength: float) -> None:
        """Everything that is no linear map of a block: W_tuned at 0, W_base at 1, between them on a straight line."""
        own = dict(self.work.model.named_parameters())
        for name, (base, tuned) in self._others.items():
            mixed = tuned if strength == 0 else base if strength == 1 else torch.lerp(tuned, base.to(tuned), strength)
            own[name].data.copy_(mixed)

    def each(self, change: Callable[[str, Tensor], Tensor], strength: float) -> None:
        """Set every linear map to `change(name, delta)` and everything else to `strength`; 0 restores the tuned model."""
        if strength == 0.0:
            self.restore()
            return
        for name in self.names:
            self.set(name, change(name, self.delta(name)))
        self.set_others(strength)

    def restore(self) -> None:
        """The working copy is the tuned model again, bit for bit."""
        for name, weight in self._original.items():
            self.set_weight(name, weight)
        self.set_others(0.0)

    def repaired_delta(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """What the working copy's linear map differs from the base's by now, float32."""
        weight: Tensor = self.work.model.get_submodule(name).weight
        return weight.detach().float() - self.base_weight(name).to(weight.device).float()


def lay_out(pair: ModelPair) -> Workbench:
    """The workbench of a pair. Raises NothingToRepair where the weights are equal, BadOption for adapters that are no plain
    LoRA, UnsupportedArchitecture where the blocks hold no nn.Linear."""
    work = _tuned_copy(pair)
    linears = _linears(work)
    if not linears:
        raise UnsupportedArchitecture(
            f"The blocks of {pair.architecture} hold no nn.Linear. Repair works on linear maps; expected a model whose "
            "attention "
            "and MLP are made of them."
        )
    bench = Workbench(
        pair=pair, work=work, names=(), block={name: block for name, (block, _) in linears.items()}, _original={}, _others={}
    )
    bench.names = tuple(name for name in linears if _changed(bench, name))
    bench._others = {} if pair.adapter else _changed_others(pair, set(linears))
    if not bench.names and not bench._others:
        raise NothingToRepair(
            f"{pair.base_name} and {pair.tuned_name} have equal weights, so there is nothing to repair. "
            "Expected a base and a fine-tune of it."
        )
    # The tuned weights of a pair of whole models stay in `pair`; an adapter's merged ones have to be kept.
    own = work.model.get_submodule
    bench._original = {
        name: own(name).weight.detach().clone() if pair.adapter else pair.tuned_parts.model.get_submodule(name).weight.detach()
        for name in bench.names
    }
    return bench


def _tuned_copy(pair: ModelPair) -> Parts:
    if not pair.adapter:
        return find_parts(copy.deepcopy(pair.tuned_parts.model))
    model = pair.peft_model.get_base_model()
    active = pair.peft_model.active_adapter
    for name, module in model.named_modules():
        odd = active in getattr(module, "modules_to_save", {}) or (
            hasattr(module, "get_base_layer")
            and (active not in getattr(module, "lora_A", {}) or getattr(module, "use_dora", {}).get(active, False))
        )
        if odd:
            raise BadOption(
                f"{pair.tuned_name} is no plain LoRA adapter ({name}). Merge it into its base (peft: merge_and_unload, then "
                "save_pretrained) and give the merged model as TUNED."
            )
    merged = copy.deepcopy(pair.peft_model).merge_and_unload()
    return find_parts(merged.eval())


def _linears(parts: Parts) -> dict[str, tuple[int, nn.Linear]]:
    """Name -> (block, module) of every nn.Linear in the blocks, in order."""
    place = {id(module): name for name, module in parts.model.named_modules()}
    found = {}
    for index, block in enumerate(parts.blocks):
        for module in block.modules():
            if type(module) is nn.Linear:
                found[place[id(module)]] = (index, module)
    return found


def _changed(bench: Workbench, name: str) -> bool:
    if bench.pair.adapter and not hasattr(bench.pair.peft_model.get_base_model().get_submodule(name), "get_delta_weight"):
        return False
    return bool(bench.delta(name).any())


def _changed_others(pair: ModelPair, linears: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (base, tuned) of every other parameter that differs."""
    base = dict(pair.base_parts.model.named_parameters())
    tuned = dict(pair.tuned_parts.model.named_parameters())
    return {
        name: (base[name].detach(), weight.detach())
        for name, weight in tuned.items()
        if name.removesuffix(".weight") not in linears and not torch.equal(weight, base[name].to(weight.device))
    }
