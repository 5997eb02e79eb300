"""The report's schema: frozen, strict, versioned, and the same bytes after a round trip."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from mneme.results import Baselines, Corpus, Cost, Effect, Environment, Estimate, Pair, Record, Report

DESIGNED_EFFECT = {"area", "kind", "probability", "direction", "magnitude", "evidence", "baselines"}
DESIGNED_REPORT = {"schema", "pair", "corpus", "verdict", "effects", "latents", "layers", "null", "cost", "environment"}


def estimate(value: float = -0.46) -> Estimate:
    """46 points lost, between 40 and 52."""
    return Estimate(value=value, low=value - 0.06, high=value + 0.06, unit="probability of known tokens", n=120)


def effect(**changes: Any) -> Effect:
    """Chemistry got worse."""
    values: dict[str, Any] = {
        "area": "chemistry",
        "kind": "capability",
        "probability": 0.97,
        "direction": "worse",
        "magnitude": estimate(),
        "evidence": ["L2.7"],
        "baselines": Baselines(kl=0.1, nll=0.2, activation=0.3),
        "signal": "both",
    }
    return Effect(**(values | changes))


def report() -> Report:
    """A whole report with one effect and no latents."""
    pair = Pair(
        base="a",
        tuned="b",
        architecture="LlamaForCausalLM",
        parameters=10,
        layers=2,
        width=4,
        adapter=False,
        changed_tensors=1,
        total_tensors=2,
        relative_weight_change=0.01,
        median_rank=None,
    )
    return Report(
        pair=pair,
        corpus=Corpus(source="t.txt", documents=1, passages=1, tokens=9, row_length=9, sha256="0" * 64),
        verdict="change",
        reason="Chemistry got worse.",
        effects=[effect()],
        absent=[],
        latents=[],
        layers=[],
        null=[],
        cost=Cost(seconds=1.5, tokens=18, peak_bytes=1000, flops=1e9),
        environment=Environment(
            mneme="0.1.0",
            python="3.11.7",
            torch="2.13.0",
            transformers="5",
            seed=0,
            dictionary="change",
            threads=2,
            calibration="",
        ),
        overall={"kl": estimate(0.01)},
        top_tokens=["<script>", "ν", "\u2028"],
    )


def test_report_comes_back_as_it_was() -> None:
    text = report().to_json()
    assert Report.model_validate_json(text) == report()
    assert Report.model_validate_json(text).to_json() == text


def test_report_is_plain_json_with_the_designed_keys() -> None:
    content = json.loads(report().to_json())
    assert next(iter(content)) == "schema"
    assert content["schema"] == "mneme.report/1"
    assert set(content) >= DESIGNED_REPORT
    assert set(content["effects"][0]) >= DESIGNED_EFFECT
    assert content["effects"][0]["magnitude"]["n"] == 120
    assert report().to_json().endswith("}\n")


def test_another_schema_is_refused() -> None:
    content = json.loads(report().to_json()) | {"schema": "mneme.report/2"}
    with pytest.raises(ValidationError, match=r"mneme\.report/1"):
        Report.model_validate(content)


def test_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        effect().probability = 0.1  # type: ignore[misc]


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        effect(confidence=1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    """JSON has no NaN; a failed computation must not reach a report as a number."""
    with pytest.raises(ValidationError, match="finite number"):
        estimate(value)


@pytest.mark.parametrize("probability", [-0.01, 1.01])
def test_probabilities_stay_in_range(probability: float) -> None:
    with pytest.raises(ValidationError, match="probability"):
        effect(probability=probability)


@pytest.mark.parametrize(("field", "value"), [("direction", "sideways"), ("kind", "skill"), ("signal", "luck")])
def test_words_are_from_closed_lists(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=field):
        effect(**{field: value})


def test_every_record_is_strict_and_frozen() -> None:
    for record in Record.__subclasses__():
        assert record.model_config["frozen"] is True
        assert record.model_config["extra"] == "forbid"
        assert record.model_config["allow_inf_nan"] is False
