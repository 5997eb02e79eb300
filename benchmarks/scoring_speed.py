"""Latent scaling: one sparse pass for all latents against the per-latent closed form of the published code.

6,144 latents, d_model 768, 2,048 tokens, about 32 codes a token, one thread, CPU time (other programs do not count), medians.
Both get the codes; the slow one gets them dense and the reconstructions ready. For each latent, model (2) and target (error,
reconstruction, activation) it does what the published closed form does: an explicit target of tokens x d_model, multiplied by
the code and the tuned decoder. It is timed on the `--subset` most active latents and multiplied up to all of them, since its
cost does not depend on the latent. The one pass gives the other scores as well. Equality is checked on the subset in float64.
"""

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor

from mneme.dictionaries.crosscoder import Dictionary, decoders, encode
from mneme.diff.scoring import latent_scores, latent_sums

D_MODEL, LATENTS, N_TOKENS, K = 768, 6144, 2048, 32


def planted() -> tuple[Dictionary, Tensor, Tensor]:
    """A crosscoder and the (m, q) of streams that its own decoder makes, with noise; some latents are weak in the base."""
    generator = torch.Generator().manual_seed(3)
    decoder = torch.nn.functional.normalize(torch.randn(LATENTS, 2, D_MODEL, generator=generator), dim=2)
    decoder[:, 0] *= torch.rand(LATENTS, 1, generator=generator)
    fires = torch.rand(N_TOKENS, LATENTS, generator=generator) < K / LATENTS
    codes = fires * (1.0 + torch.rand(N_TOKENS, LATENTS, generator=generator))
    rows = decoder.reshape(LATENTS, -1)
    x = codes @ rows + 0.02 * torch.randn(N_TOKENS, 2 * D_MODEL, generator=generator)
    encoder = (rows / rows.square().sum(1, keepdim=True)).T.contiguous()
    zero, one = torch.zeros(2 * D_MODEL), torch.ones(2 * D_MODEL)
    base, tuned = x[:, :D_MODEL], x[:, D_MODEL:]
    dictionary = Dictionary("batchtopk", encoder, rows, torch.zeros(LATENTS), zero, 0.9, zero, one, K, D_MODEL, 0)
    return dictionary, (base + tuned) / 2**0.5, (tuned - base) / 2**0.5


def per_latent(f: Tensor, tuned: Tensor, own: Tensor, stream: Tensor, rebuilt: Tensor) -> list[Tensor]:
    """beta of error, reconstruction and activation of one latent in one model, from explicit targets."""
    norm = f.square().sum() * tuned.square().sum()
    targets = (stream - (rebuilt - f[:, None] * own), rebuilt, stream)
    return [(f @ target) @ tuned / norm for target in targets]


def main() -> int:
    """Prints times, the ratio and the largest difference; exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subset", type=int, default=100, help="latents on which the slow one is timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dictionary, m, q = planted()
    codes = encode(dictionary, m, q)
    latent_scores(dictionary, latent_sums(dictionary, codes, m, q))
    quick = []
    for _ in range(5):
        start = time.process_time()
        scores = latent_scores(dictionary, latent_sums(dictionary, codes, m, q))
        quick.append(time.process_time() - start)
    f = torch.zeros(N_TOKENS, LATENTS).index_put_((codes.token_index, codes.latent_index), codes.value)
    subset = (f > 0).sum(0).topk(options.subset).indices.tolist()
    directions = decoders(dictionary)
    streams = [(m - q) / 2**0.5, (m + q) / 2**0.5]
    rebuilt = [f @ directions[:, i] for i in (0, 1)]
    times = []
    for latent in subset:
        start = time.process_time()
        for i in (0, 1):
            per_latent(f[:, latent], directions[latent, 1], directions[latent, i], streams[i], rebuilt[i])
        times.append(time.process_time() - start)
    slow, quick_time = statistics.median(times) * LATENTS, statistics.median(quick)
    worst, exact = 0.0, [(s.double(), f.double() @ directions[:, i].double()) for i, s in enumerate(streams)]
    for latent in subset:
        one, d = f[:, latent].double(), directions[latent].double()
        base, tuned = (per_latent(one, d[1], d[i], *exact[i]) for i in (0, 1))
        for ours, above, below in zip((scores.nu_error, scores.nu_reconstruction), base[:2], tuned[:2], strict=True):
            if ours is None:
                raise SystemExit("a crosscoder has both ratios")
            worst = max(worst, abs(float(ours[latent]) - float(above / below)))
    ratio = slow / quick_time
    print(f"{codes.value.numel() / N_TOKENS:.1f} codes a token")
    print(f"one pass {quick_time:.3f} s, per latent {slow:.1f} s (from {options.subset} latents): {ratio:.0f} x faster")
    print(f"largest difference of nu from the closed form in float64: {worst:.1e}")
    return 0 if ratio >= 100 and worst <= 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
