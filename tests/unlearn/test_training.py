"""What is trained, the loss of every method against one computed text by text, and runs that stop and go on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import GPT2Config, GPT2LMHeadModel

from mneme.errors import BadCorpus, BadOption, UnlearningFailed
from mneme.models.architecture import Parts, find_parts
from mneme.models.batching import epoch_batch
from mneme.models.fitting import Losses, Term
from mneme.models.likelihood import text_log_likelihoods
from mneme.text.pieces import Pieces, cut_pieces
from mneme.unlearn.objective import freeze, objective, plain_loss
from mneme.unlearn.options import UnlearnOptions
from mneme.unlearn.relearning import relearn
from mneme.unlearn.settings import METHODS, UnlearnSettings, settings_for
from mneme.unlearn.training import minimise, prepare, signature
from tests import laws
from tests.conftest import WORDS, grouped, keep_every, tiny_llama, word_tokenizer
from tests.unlearn.conftest import as_documents

TEXTS = tuple(" ".join(WORDS[(i * 7 + j * (i + 1)) % len(WORDS)] for j in range(3 + i % 5)) for i in range(10))


def settings(method: str = "npo", **changes: object) -> UnlearnSettings:
    """Small settings for the tiny model."""
    given = {
        "steps": 6,
        "learning_rate": 1e-2,
        "batch": 3,
        "lora_rank": 0,
        "method": method,
    }
    width, n_layers = int(changes.pop("width", 16)), int(changes.pop("n_layers", 2))
    asked = UnlearnOptions("model", forget="forget.txt", retain="retain.txt", **grouped(**(given | changes)))
    return settings_for(asked, width=width, n_layers=n_layers)


def pieces(texts: tuple[str, ...]) -> Pieces:
    return cut_pieces(as_documents(texts), word_tokenizer(), 512)


def ids_of(texts: tuple[str, ...]) -> list[torch.Tensor]:
    return [torch.tensor(text.ids) for text in pieces(texts).texts]


def started(chosen: UnlearnSettings) -> tuple[Parts, dict[str, torch.nn.Parameter], tuple[Term, Term]]:
    """A fresh tiny model, what is trained of it, and the losses on the first five and last five texts."""
    parts = find_parts(tiny_llama())
    tunable = prepare(parts, chosen)
    terms = objective(chosen, parts, freeze(parts, tunable.adapter, chosen), pieces(TEXTS[:5]), pieces(TEXTS[5:]))
    return parts, tunable.parameters, terms


def run(chosen: UnlearnSettings, checkpoint: Path | None = None, stop_after: int | None = None) -> tuple[Losses, np.ndarray]:
    """(losses, signature of the trained weights)."""

    def stop(step: int, _losses: list[float]) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    _, parameters, terms = started(chosen)
    losses = minimise(
        terms,
        parameters,
        steps=chosen.steps,
        learning_rate=chosen.learning_rate,
        checkpoint=checkpoint,
        on_step=stop,
    )
    return losses, signature(parameters)


def nll_of(parts: Parts, ids: torch.Tensor) -> torch.Tensor:
    """Nats of each token but the first of one text, alone in its batch."""
    logits = parts.model(input_ids=ids[None]).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")


def nats(parts: Parts) -> np.ndarray:
    """Of every text."""
    return -text_log_likelihoods(parts, pieces(TEXTS).texts)


@pytest.mark.parametrize("method", ["grad-ascent", "grad-diff", "npo", "simnpo"])
def test_a_padded_batch_has_the_loss_of_its_texts_one_by_one(method: str) -> None:
    """Law *padding*, through the model: the texts of a batch have 3 to 7 tokens."""
    chosen = settings(method)
    parts, _, (forget, retain) = started(chosen)
    with torch.no_grad():
        which = epoch_batch(5, 3, 2, chosen.seed)
        nll = [nll_of(parts, ids_of(TEXTS[:5])[i]) for i in which]
        by_hand = {
            "grad-ascent": lambda: -torch.cat(nll).mean(),
            "grad-diff": lambda: -torch.cat(nll).mean(),
            "npo": lambda: torch.tensor(2 / 0.1 * np.log(2.0)),
            "simnpo": lambda: torch.stack([-(2 / 0.7) * logsigmoid(0.7 * row.mean()) for row in nll]).mean(),
        }[method]()
        laws.padding(forget.loss_at(2), by_hand.float())
        kept = [nll_of(parts, ids_of(TEXTS[5:])[i]) for i in epoch_batch(5, 3, 2, chosen.seed + 1)]
        laws.padding(retain.loss_at(2), torch.cat(kept).mean())


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_reference_of_npo_is_the_model_as_it_was(lora_rank: int) -> None:
    """At the first step the two are one: (2/beta) log 2. After the weights moved the reference has not."""
    chosen = settings("npo", lora_rank=lora_rank)
    parts, parameters, (forget, _) = started(chosen)
    assert forget.loss_at(0).item() == pytest.approx(2 / chosen.beta * np.log(2.0), rel=1e-5)
    which = epoch_batch(5, chosen.batch_documents, 1, chosen.seed)
    before = np.array([nll_of(parts, ids_of(TEXTS[:5])[i]).sum().item() for i in which])
    with torch.no_grad():
        for weight in parameters.values():
            weight.add_(0.05)
    after = np.array([nll_of(parts, ids_of(TEXTS[:5])[i]).sum().item() for i in which])
    by_hand = -(2 / chosen.beta) * torch.nn.functional.logsigmoid(torch.tensor(chosen.beta * (after - before))).mean()
    assert forget.loss_at(1).item() == pytest.approx(float(by_hand), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_its_own_loss(method: str) -> None:
    losses, _ = run(settings(method, steps=30, batch=5, retain_weight=0.0))
    assert losses[-1, 0] < losses[0, 0]


@pytest.mark.parametrize(("method", "retain_loss"), [("npo", "kl"), ("rmu", "nll")])
def test_what_holds_to_the_frozen_model_starts_at_0(method: str, retain_loss: str) -> None:
    losses, _ = run(settings(method, retain_loss=retain_loss))
    laws.identity(losses[0, 1])
    assert losses[-1, 1] > 0


@pytest.mark.parametrize("lora_rank", [None, 2])
@pytest.mark.parametrize("method", ["npo", "rmu", "undial"])
def test_determinism(method: str, lora_rank: int | None) -> None:
    laws.determinism(lambda: run(settings(method, lora_rank=lora_rank or 0)))


def test_zero_strength_is_plain_fine_tuning_on_the_retained_text() -> None:
    chosen = settings("npo", forget_weight=0.0)
    at_zero, weights = run(chosen)
    parts, parameters, _ = started(chosen)
    loss_at = plain_loss(parts, pieces(TEXTS[5:]), chosen.batch_documents, chosen.seed + 1)
    plain = minimise([Term("retain", 1.0, loss_at)], parameters, steps=chosen.steps, learning_rate=chosen.learning_rate)
    laws.zero_strength(plain[:, 0], at_zero[:, 1])
    laws.zero_strength(signature(parameters), weights)
    assert np.isnan(at_zero[:, 0]).all()


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    _, parameters, _ = started(settings("npo"))

    def diverged(step: int) -> Float[Tensor, ""]:
        return sum(p.sum() for p in parameters.values()) * (1.0 if step == 0 else float("nan"))

    with pytest.raises(UnlearningFailed, match=r"the forget loss is nan at step 2 of 3: training diverged"):
        minimise([Term("forget", 1.0, diverged)], parameters, steps=3, learning_rate=1e-3)


@pytest.mark.parametrize("lora_rank", [None, 2])
@pytest.mark.parametrize("stop_after", [0, 3, 5])
def test_a_killed_run_goes_on_with_the_same_losses(
    lora_rank: int | None, stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_every(monkeypatch, 2)
    chosen = settings("npo", lora_rank=lora_rank or 0)
    undisturbed = run(chosen)
    with pytest.raises(KeyboardInterrupt):
        run(chosen, tmp_path / "state.safetensors", stop_after)
    assert (tmp_path / "state.safetensors").exists() == (stop_after > 0)
    assert laws.bytes_of(run(chosen, tmp_path / "state.safetensors")) == laws.bytes_of(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    parts = find_parts(tiny_llama())
    term = Term("forget", 1.0, lambda step: plain_loss(parts, pieces(TEXTS), 3, 0)(step) / (0.0 if step == 2 else 1.0))
    with pytest.raises(UnlearningFailed, match=r"the forget loss is inf at step 3 of 5: .* lower --lr"):
        minimise([term], dict(parts.model.named_parameters()), steps=5, learning_rate=1e-3)


def test_rmu_trains_only_what_the_chosen_blocks_write() -> None:
    parts = find_parts(tiny_llama(num_hidden_layers=6))
    trained = prepare(parts, settings("rmu", n_layers=6, layers=(4,))).parameters
    assert sorted(trained) == [f"model.layers.{block}.mlp.down_proj.weight" for block in (2, 3, 4)]
    assert [name for name, p in parts.model.named_parameters() if p.requires_grad] == list(trained)


def test_rmu_on_matrices_that_are_kept_the_other_way_round() -> None:
    """GPT-2 keeps its weights as (in, out), and its feed-forward part is as wide inside as the stream times four."""
    sizes = {"vocab_size": 92, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
    torch.manual_seed(0)
    parts = find_parts(GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=2, eos_token_id=3)).eval())
    chosen = settings("rmu", n_layers=3, layers=(1,))
    assert sorted(prepare(parts, chosen).parameters) == [f"transformer.h.{block}.mlp.c_proj.weight" for block in (0, 1)]
    adapted = prepare(parts, settings("rmu", n_layers=3, layers=(1,), lora_rank=2)).parameters
    assert {name.split(".h.")[1][0] for name in adapted} == {"0", "1"}


def test_an_adapter_trains_nothing_else() -> None:
    parts = find_parts(tiny_llama())
    trained = prepare(parts, settings("npo", lora_rank=2)).parameters
    assert trained
    assert all("lora_" in name for name in trained)


def test_long_texts_are_cut_into_near_equal_pieces() -> None:
    words = " ".join(WORDS[:10])
    cut_up = cut_pieces(as_documents((words, WORDS[0], "ba be")), word_tokenizer(), 4)
    assert [len(text.ids) for text in cut_up.texts] == [3, 3, 4, 2]
    assert cut_up.document.tolist() == [0, 0, 0, 2]
    with pytest.raises(BadCorpus, match="no text has two tokens"):
        cut_pieces(as_documents((WORDS[0],)), word_tokenizer(), 4)


def test_relearning_leaves_the_model_as_it_was() -> None:
    parts = find_parts(tiny_llama())
    before = signature(dict(parts.model.named_parameters()))
    relearnt = relearn(parts, pieces(TEXTS), steps=20, learning_rate=1e-2, seed=0)
    laws.zero_strength(before, signature(dict(parts.model.named_parameters())))
    assert nats(relearnt).sum() < nats(parts).sum()


def test_relearning_merges_an_adapter_first() -> None:
    chosen = settings("npo", lora_rank=2, steps=20)
    parts = find_parts(tiny_llama())
    tunable = prepare(parts, chosen)
    frozen = freeze(parts, tunable.adapter, chosen)
    terms = objective(chosen, parts, frozen, pieces(TEXTS[:5]), pieces(TEXTS[5:]))
    minimise(terms, tunable.parameters, steps=chosen.steps, learning_rate=chosen.learning_rate)
    relearnt = relearn(parts, pieces(TEXTS), steps=1, learning_rate=0.0, seed=0, adapter=tunable.adapter)
    assert not any("lora" in name for name, _ in relearnt.model.named_parameters())
    laws.padding(nats(relearnt), nats(parts), tolerance=1e-4)


def test_default_rates_go_with_the_width() -> None:
    def rate(**changes: object) -> float:
        return settings("npo", learning_rate=None, **changes).learning_rate

    assert rate(width=4096) == pytest.approx(1e-5)
    assert rate(width=128) == pytest.approx(3.2e-4)
    assert rate(width=4096, lora_rank=8) == pytest.approx(1e-4)
    assert settings("rmu", n_layers=32).layers == (7,)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("npo", {"layers": (1,)}, r"--layers is for rmu"),
        ("rmu", {"layers": (2,)}, r"No layer 2: this model has 2 blocks"),
        ("npo", {"steps": 0}, r"--steps 0: expected a whole number from 1"),
        ("npo", {"learning_rate": -1.0}, r"--lr -1: expected a number from 0"),
        ("npo", {"beta": 0.0}, r"--beta 0: expected a number above 0"),
    ],
)
def test_options_that_cannot_be(method: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        settings(method, **changes)
