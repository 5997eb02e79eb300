"""Time of one training step of a BatchTopK crosscoder, against a plain dense PyTorch one and against its encoder product.

d_model 512 (input 2 x 512), 8,192 latents, k = 32, batch 2,048, float32, 2 threads. The three are timed in turn in one process
and compared by medians, so a busy machine slows them alike. The dense one is what one would write first: autograd, a top-k
of all scores, a scattered dense code, Adam (fused, so that the optimiser is not what differs). Both train on the same batches
from the same start without AuxK (no latent is dead in so few steps), and their losses must agree to 1e-4.
"""

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor

from mneme.dictionaries.crosscoder import input_statistics
from mneme.dictionaries.settings import Settings, default_learning_rate, initial_rows, rate_factor
from mneme.dictionaries.training import Trainer

D_MODEL, LATENTS, K, BATCH = 512, 8192, 32, 2048


class DenseCrosscoder(torch.nn.Module):
    """The plain dense reference."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        encoder, decoder = initial_rows(settings, settings.seeds[0])
        self.w_enc = torch.nn.Parameter(encoder.T.contiguous())
        self.w_dec = torch.nn.Parameter(decoder)
        self.b_enc = torch.nn.Parameter(torch.zeros(settings.n_latents))
        self.b_dec = torch.nn.Parameter(torch.zeros(settings.input_width))
        self.n_keep = round(settings.ks[0] * settings.batch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Mean squared error."""
        codes = torch.relu(x @ self.w_enc + self.b_enc)
        sizes = self.w_dec.reshape(len(self.w_dec), 2, -1).norm(dim=2).sum(1).detach()
        top = (codes * sizes).flatten().topk(self.n_keep, sorted=False).indices
        kept = torch.zeros_like(codes).flatten().scatter(0, top, codes.flatten()[top]).reshape(codes.shape)
        return (kept @ self.w_dec + self.b_dec - x).square().mean()


def batches(n: int) -> list[tuple[Tensor, Tensor]]:
    """(m, q) of a stream with sparse structure, so that the loss falls."""
    generator = torch.Generator().manual_seed(11)
    features = torch.nn.functional.normalize(torch.randn(2048, D_MODEL, generator=generator), dim=1)
    out = []
    for _ in range(n):
        codes = torch.rand(BATCH, 2048, generator=generator) * (torch.rand(BATCH, 2048, generator=generator) < 0.02)
        m = codes @ features
        out.append((m, 0.1 * torch.randn(BATCH, D_MODEL, generator=generator)))
    return out


def main() -> int:
    """Prints losses, times and ratios; exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, for a busy machine (best with --threads 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    settings = Settings("batchtopk", D_MODEL, LATENTS, (float(K),), (0,), options.steps, BATCH, aux_weight=0.0)
    stream = batches(4)
    trainer = Trainer(settings, *input_statistics("batchtopk", *stream[0]))
    dense = DenseCrosscoder(settings)
    adam = torch.optim.Adam(dense.parameters(), lr=default_learning_rate(settings), fused=True)
    root = 0.5**0.5
    inputs = [(torch.cat([(m - q) * root, (m + q) * root], dim=1) - trainer.mean) / trainer.scale for m, q in stream]
    weights = initial_rows(settings, 0)[0]
    times: dict[str, list[float]] = {"sparse": [], "dense": [], "encoder": []}
    worst = 0.0
    for step in range(options.steps):
        x = inputs[step % len(inputs)]
        start = clock()
        mine = trainer.step_normalised(x)
        times["sparse"].append(clock() - start)
        start = clock()
        for group in adam.param_groups:
            group["lr"] = default_learning_rate(settings) * rate_factor(step, options.steps)
        adam.zero_grad()
        loss = dense(x)
        loss.backward()
        adam.step()
        loss = loss.detach()
        times["dense"].append(clock() - start)
        start = clock()
        torch.matmul(x, weights.T)
        times["encoder"].append(clock() - start)
        worst = max(worst, abs(float(mine[0]) - float(loss)))
        if step % 5 == 0 or step == options.steps - 1:
            print(f"step {step:3d}  loss {float(mine[0]):.6f} (dense {float(loss):.6f})")
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, value in median.items():
        best = min(times[name])
        print(f"{name:>8}: median {value * 1e3:7.1f} ms  {BATCH / value:6.0f} tokens/s, best {best * 1e3:7.1f} ms")
    gain, cost = median["dense"] / median["sparse"], median["sparse"] / median["encoder"]
    print(
        f"{gain:.2f} x the dense step (target 3), {cost:.2f} x the encoder product alone (target 1.8), loss within {worst:.1e}"
    )
    return 0 if gain >= 3 and cost <= 1.8 and worst <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
