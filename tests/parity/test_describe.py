"""Detection scoring against delphi (EleutherAI/delphi 3c2e139, delphi/log/result_analysis.py)."""

import json
import re

import numpy as np
import pytest

from mneme.describe import endpoint
from mneme.models.client import Endpoint
from mneme.stats import balanced_accuracy
from tests.parity import FLOAT64, authors_numbers, furthest, seeded

CONTEXTS = 24
SAID = [value > (-0.8 if i < CONTEXTS // 2 else 0.5) for i, value in enumerate(seeded(CONTEXTS, seed=71).tolist())]
"""What a judge says of 12 contexts that fire and 12 that do not."""


def test_score_of_predictions_is_the_accuracy_of_delphi() -> None:
    expected = authors_numbers("delphi")
    fits = np.arange(CONTEXTS) < CONTEXTS // 2
    assert furthest(balanced_accuracy(np.array(SAID), fits), expected["accuracy"]) <= FLOAT64


def test_score_of_a_phrase_is_the_accuracy_of_delphi(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through requests and answers, in a drawn order."""

    def judge(_endpoint: Endpoint, _system: str, user: str) -> str:
        passages = json.loads(user[user.index("{") :])["passages"]
        return str([int(i) for i, text in passages.items() if SAID[int(re.findall(r"\d+", text)[0])]])

    monkeypatch.setattr(endpoint, "complete", judge)
    contexts = [f"context {i}" for i in range(CONTEXTS)]
    half = CONTEXTS // 2
    nowhere = Endpoint("http://nowhere", "m", 1.0, 0.0)
    found = endpoint.detection_by(nowhere, "phrase", contexts[:half], contexts[half:], seed=3)
    assert furthest(found, authors_numbers("delphi")["accuracy"]) <= FLOAT64


def test_an_unreadable_answer_counts_as_wrong_where_delphi_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = authors_numbers("delphi")
    unread = np.array([i in expected["unread"] for i in range(CONTEXTS)])
    fits = np.arange(CONTEXTS) < CONTEXTS // 2
    said = np.where(unread, ~fits, SAID)
    left_out = balanced_accuracy(np.array(SAID)[~unread], fits[~unread])
    assert furthest(left_out, expected["accuracy_of_the_read"]) <= FLOAT64
    assert balanced_accuracy(said, fits) < left_out
