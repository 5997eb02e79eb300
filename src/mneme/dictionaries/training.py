"""Trains several dictionaries (every k with every seed) on one stream of token-paired activations.

One step costs one dense product (the encoder); decoding and all gradients are sparse (`topk.py`), written by hand and checked
against autograd in the tests. All dictionaries of a `Trainer` share their input: one stacked problem, one optimiser.

Loss: mean squared error of the normalised input (so 1.0 = nothing explained) + `aux_weight` times the AuxK loss of Gao et al.
2024 (arXiv 2406.04093): latents that did not fire for a while reconstruct the error. What differs from the published trainers:
squared error instead of a mean of norms, threshold re-estimated on held-out data, dead window, warm-up and decay that scale
with the length of the run (the published constants need 10M tokens and never act in a short run), no decoder bias taken off
the encoder's input. In crosscoders, AuxK takes d_model dead latents a token, by code; Minder et al.'s trainer half as many, by
code x decoder size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.dictionaries.crosscoder import Dictionary, coordinates
from mneme.dictionaries.settings import (
    Block,
    Settings,
    blocks,
    default_aux_weight,
    default_learning_rate,
    initial_rows,
    rate_factor,
)
from mneme.dictionaries.topk import batch_topk, group_order, next_guess, row_dots, weighted_row_sums
from mneme.errors import BadRun, EmptyMask

_MAX_DEAD_WINDOW = 10_000_000


_STATE_NAMES = ("encoder", "decoder", "encoder_bias", "decoder_bias", "silent_tokens", "floors")


@dataclass(frozen=True)
class _Codes:
    """Codes of all blocks: row = block * tokens + token, ascending; latent counts through all dictionaries."""

    row: Int[Tensor, " code"]
    token: Int[Tensor, " code"]
    latent: Int[Tensor, " code"]
    value: Float[Tensor, " code"]


class Trainer:
    """Trains the dictionaries of `settings` on batches of (m, q), raw units; `mean`, `scale`: `input_statistics`."""

    def __init__(self, settings: Settings, mean: Float[Tensor, " input"], scale: Float[Tensor, " input"]) -> None:
        """Fresh dictionaries, each drawn from its own seed, on the device of `mean`."""
        self.settings = settings
        self.mean, self.scale = mean, scale
        self.n_steps_done = 0
        n_members = len(settings.runs)
        starts = [initial_rows(settings, seed) for _, seed in settings.runs]
        device = mean.device
        self._encoder = torch.cat([encoder for encoder, _ in starts]).to(device)
        self._decoder = torch.cat([decoder for _, decoder in starts]).to(device)
        self._encoder_bias = torch.zeros(n_members * settings.n_latents, device=device)
        self._decoder_bias = torch.zeros(n_members, settings.input_width, device=device)
        self._silent_tokens = torch.zeros(n_members * settings.n_latents, dtype=torch.int64, device=device)
        self._blocks = list(blocks(settings))
        self._floors = torch.zeros(len(self._blocks), dtype=torch.float64)
        parameters = [self._encoder, self._decoder, self._encoder_bias, self._decoder_bias]
        self._rate = settings.learning_rate or default_learning_rate(settings)
        self._adam = torch.optim.Adam(parameters, lr=self._rate, fused=True)
        self._memory = self._encoder.new_empty(0)

    def step(self, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]) -> Float[Tensor, " member"]:
        """One optimiser step on a batch; returns each dictionary's mean squared error (1.0 = nothing explained) before it."""
        x = (coordinates(self.settings.kind, m, q) - self.mean) / self.scale
        return self.step_normalised(x)

    @torch.no_grad()
    def step_normalised(self, x: Float[Tensor, "token input"]) -> Float[Tensor, " member"]:
        """`step` on input that already is at zero mean and unit scale."""
        n_tokens = x.shape[0]
        codes = self._select(x)
        parts = weighted_row_sums(self._decoder, codes.latent, codes.row, codes.value, len(self._blocks) * n_tokens).reshape(
            len(self.settings.runs), -1, n_tokens, x.shape[1]
        )
        error = parts.sum(1) if parts.shape[1] > 1 else parts[:, 0]
        error += self._decoder_bias[:, None, :] - x
        losses = error.square().mean((1, 2))
        gradient = error * (2.0 / x.numel())
        rows = self._row_gradients(gradient, parts, x)
        self._note_fired(codes, n_tokens)
        self._gradients(codes, rows, gradient, x)
        self._add_aux(x, error)
        self._update()
        return losses

    def _scale_of_codes(self) -> Float[Tensor, " latent"]:
        """What a code is multiplied by to be ranked: |d_base| + |d_tuned|, or 1 where decoder rows are kept at unit norm."""
        if self.settings.kind in ("change", "rotated"):
            return torch.ones_like(self._encoder_bias)
        halves = self._decoder.reshape(self._decoder.shape[0], 2, -1)
        sizes: Tensor = torch.linalg.vector_norm(halves, dim=2).sum(1)
        return sizes

    def _select(self, x: Float[Tensor, "token input"]) -> _Codes:
        n_tokens, width = x.shape[0], self.settings.n_latents
        sizes = self._scale_of_codes()
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for i, block in enumerate(self._blocks):
            part = slice(block.member * width + block.start, block.member * width + block.stop)
            products = torch.matmul(x, self._encoder[part].T, out=self._room(n_tokens, block.stop - block.start))
            n_keep = max(1, round(block.k * n_tokens))
            guess = next_guess(float(self._floors[i]))
            chosen = batch_topk(products, self._encoder_bias[part], sizes[part], n_keep, guess=guess)
            self._floors[i] = chosen.floor
            token = chosen.flat_index // products.shape[1]
            latent = chosen.flat_index - token * products.shape[1] + part.start
            found.append((token + i * n_tokens, token, latent, chosen.code))
        row, token, latent, value = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
        return _Codes(row, token, latent, value)

    def _room(self, n_tokens: int, n_latents: int) -> Float[Tensor, "token latent"]:
        """Memory for one block's products, kept between steps: fresh pages cost as much as the scan."""
        if self._memory.numel() < n_tokens * n_latents:
            self._memory = self._encoder.new_empty(n_tokens * n_latents)
        return self._memory[: n_tokens * n_latents].view(n_tokens, n_latents)

    def _row_gradients(
        self,
        gradient: Float[Tensor, "member token input"],
        parts: Float[Tensor, "member part token input"],
        x: Float[Tensor, "token input"],
    ) -> Float[Tensor, "row input"]:
        """Gradient of the loss at each block's reconstruction; the delta loss acts on the second block only."""
        if self.settings.kind != "delta":
            return gradient.reshape(-1, x.shape[1])
        half = self.settings.d_model
        carried = parts[:, 1, :, half:] - parts[:, 1, :, :half]
        miss = carried - (x[:, half:] - x[:, :half])
        pull = miss * (2.0 * self.settings.delta_weight / miss[0].numel())
        second = gradient + torch.cat([-pull, pull], dim=2)
        return torch.stack([gradient, second], dim=1).reshape(-1, x.shape[1])

    def _note_fired(self, codes: _Codes, n_tokens: int) -> None:
        self._silent_tokens += n_tokens
        self._silent_tokens[codes.latent] = 0

    def _gradients(
        self,
        codes: _Codes,
        rows: Float[Tensor, "row input"],
        gradient: Float[Tensor, "member token input"],
        x: Float[Tensor, "token input"],
    ) -> None:
        n_latents = self._encoder.shape[0]
        of_code = row_dots(rows, self._decoder, codes.row, codes.latent)
        order = group_order(codes.latent, n_latents)
        latent = codes.latent[order]
        self._decoder.grad = weighted_row_sums(rows, codes.row[order], latent, codes.value[order], n_latents)
        self._encoder.grad = weighted_row_sums(x, codes.token[order], latent, of_code[order], n_latents)
        bias = torch.zeros_like(self._encoder_bias)
        self._encoder_bias.grad = bias.index_add_(0, latent, of_code[order])
        self._decoder_bias.grad = gradient.sum(1)

    def _dead(self) -> Bool[Tensor, "member latent"]:
        total = self.settings.n_steps * self.settings.batch_size
        window = max(self.settings.batch_size, min(_MAX_DEAD_WINDOW, total // 20))
        return (self._silent_tokens >= window).reshape(-1, self.settings.n_latents)

    def _add_aux(self, x: Float[Tensor, "token input"], error: Float[Tensor, "member token input"]) -> None:
        """Adds the gradient of AuxK: per token, the best min(input/2, dead) dead latents reconstruct what is left."""
        weight = default_aux_weight(self.settings.kind) if self.settings.aux_weight is None else self.settings.aux_weight
        if weight == 0.0:
            return
        for member, dead in enumerate(self._dead()):
            index = dead.nonzero().squeeze(1) + member * self.settings.n_latents
            if index.numel() == 0:
                continue
            left = -error[member]
            codes = torch.addmm(self._encoder_bias[index], x, self._encoder[index].T).relu_()
            n_keep = min(x.shape[1] // 2, index.numel())
            if n_keep < index.numel():
                codes = torch.where(codes >= codes.topk(n_keep, dim=1).values[:, -1:], codes, 0.0)
            miss = codes @ self._decoder[index] - left
            spread = float((left - left.mean(0)).square().sum())
            if spread == 0.0:
                continue
            miss *= 2.0 * weight / spread
            of_code = (miss @ self._decoder[index].T) * (codes > 0)
            _grad(self._decoder)[index] += codes.T @ miss
            _grad(self._encoder)[index] += of_code.T @ x
            _grad(self._encoder_bias)[index] += of_code.sum(0)

    def _update(self) -> None:
        unit = self.settings.kind in ("change", "rotated")
        if unit:
            grad = _grad(self._decoder)
            grad -= (grad * self._decoder).sum(1, keepdim=True) * self._decoder
        for group in self._adam.param_groups:
            group["lr"] = self._rate * rate_factor(self.n_steps_done, self.settings.n_steps)
        self._adam.step()
        if unit:
            self._decoder /= torch.linalg.vector_norm(self._decoder, dim=1, keepdim=True)
        self.n_steps_done += 1

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as plain tensors; `from_state` continues to exactly the same results."""
        out = {name: getattr(self, f"_{name}") for name in _STATE_NAMES}
        out |= {"mean": self.mean, "scale": self.scale, "n_steps_done": torch.tensor(self.n_steps_done)}
        for i, saved in self._adam.state_dict()["state"].items():
            out |= {f"adam.{i}.{name}": value for name, value in saved.items()}
        return {name: value.clone() for name, value in out.items()}

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, Tensor]) -> "Trainer":
        """The trainer that `state()` was taken from, with the same settings. Error: BadRun when they do not fit each other."""
        missing = [name for name in (*_STATE_NAMES, "mean", "scale", "n_steps_done") if name not in state]
        if missing:
            raise BadRun(f"This training state lacks {', '.join(missing)}: expected one written by Trainer.state().")
        trainer = cls(settings, state["mean"], state["scale"])
        for name in _STATE_NAMES:
            own = getattr(trainer, f"_{name}")
            if own.shape != state[name].shape:
                raise BadRun(
                    f"This training state belongs to other settings: {name} has shape {tuple(state[name].shape)}, expected "
                    f"{tuple(own.shape)}. Resume with the options of the first run, or start afresh."
                )
            own.copy_(state[name])
        trainer.n_steps_done = int(state["n_steps_done"])
        saved = trainer._adam.state_dict()
        for name, value in state.items():
            if name.startswith("adam."):
                _, i, field = name.split(".")
                saved["state"].setdefault(int(i), {})[field] = value.clone()
        trainer._adam.load_state_dict(saved)
        return trainer

    @torch.no_grad()
    def finish(self, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]) -> list[Dictionary]:
        """The trained dictionaries in the order of `settings.runs`; thresholds make them fire k times on held-out tokens.

        Error: EmptyMask when there are no held-out tokens.
        """
        if q.shape[0] == 0:
            raise EmptyMask("Cannot set thresholds on 0 held-out tokens: expected some that training did not see.")
        x = (coordinates(self.settings.kind, m, q) - self.mean) / self.scale
        sizes = self._scale_of_codes()
        thresholds = torch.stack([self._threshold(x, block, sizes) for block in self._blocks])
        return [self._dictionary(i, thresholds, sizes) for i in range(len(self.settings.runs))]

    def _threshold(self, x: Float[Tensor, "token input"], block: Block, sizes: Float[Tensor, " latent"]) -> Float[Tensor, ""]:
        """Midway between the last score kept and the first one dropped of all held-out tokens; 0 when too few are positive."""
        width = self.settings.n_latents
        part = slice(block.member * width + block.start, block.member * width + block.stop)
        n_keep = max(1, round(block.k * x.shape[0]))
        best = x.new_zeros(0)
        for start in range(0, x.shape[0], 4096):
            rows = x[start : start + 4096]
            products = torch.matmul(rows, self._encoder[part].T, out=self._room(rows.shape[0], block.stop - block.start))
            floor = float(best.min()) if best.numel() > n_keep else None
            chosen = batch_topk(products, self._encoder_bias[part], sizes[part], n_keep + 1, guess=floor)
            latent = chosen.flat_index % products.shape[1] + part.start
            best = torch.cat([best, chosen.code * sizes[latent]])
            best = best.topk(min(n_keep + 1, best.numel()), sorted=False).values
        if best.numel() <= n_keep:
            return x.new_zeros(())
        return best.topk(2, largest=False).values.mean()

    def _dictionary(self, member: int, thresholds: Float[Tensor, " block"], sizes: Float[Tensor, " latent"]) -> Dictionary:
        """Folds the ranking size, and for delta the ratio of its two thresholds, into the weights: one threshold."""
        width, (k, seed) = self.settings.n_latents, self.settings.runs[member]
        part = slice(member * width, (member + 1) * width)
        fold = sizes[part].clamp_min(torch.finfo(torch.float32).tiny)
        own = [(block, thresholds[i]) for i, block in enumerate(self._blocks) if block.member == member]
        threshold = own[0][1]
        for block, other in own[1:]:
            if threshold > 0 and other > 0:
                fold[block.start : block.stop] *= threshold / other
        return Dictionary(
            kind=self.settings.kind,
            w_enc=(self._encoder[part] * fold[:, None]).T.contiguous(),
            w_dec=self._decoder[part] / fold[:, None],
            b_enc=self._encoder_bias[part] * fold,
            b_dec=self._decoder_bias[member].clone(),
            threshold=float(threshold),
            mean=self.mean,
            scale=self.scale,
            k=k,
            d_model=self.settings.d_model,
            seed=seed,
        )


def _grad(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("gradients are set before they are changed")
    return parameter.grad
