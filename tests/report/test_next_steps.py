"""What the page says to do now: commands that the program itself reads, and the five steps of the cost."""

import shlex

import pytest
import typer

from mneme.cli.main import app
from mneme.report.audit import legible, render_html
from mneme.report.next_steps import next_steps, not_judged, steps_of
from mneme.results import Report
from tests.report.sample import effects, latents, sample_report

COMMAND = "mneme audit base tuned --corpus text.txt --tokens 5000 --out runs/mine"


def unsettled(**more: object) -> Report:
    """Nothing affected, and one area open."""
    open_one = effects()[4].model_copy(update={"finding": "not enough evidence", "more_passages": 40, "power": 0.31})
    rest = [one.model_copy(update={"finding": "unaffected", "probability": 0.01}) for one in effects()[5:]]
    fields: dict[str, object] = {"verdict": "inconclusive", "effects": [open_one, *rest], "command": COMMAND}
    return sample_report(**(fields | more))


def quiet() -> Report:
    rest = [one.model_copy(update={"finding": "unaffected", "probability": 0.01}) for one in effects()[4:]]
    return sample_report(verdict="no material change", effects=rest, command=COMMAND)


def without_purpose() -> Report:
    return sample_report(effects=[one.model_copy(update={"intended": False}) for one in effects()], command=COMMAND)


@pytest.mark.parametrize(
    "report",
    [
        sample_report(),
        sample_report(command=COMMAND),
        without_purpose(),
        unsettled(),
        quiet(),
        unsettled(command=f"{COMMAND} --quick"),
    ],
)
def test_every_step_is_a_command_that_the_program_reads(report: Report) -> None:
    steps = next_steps(report)
    assert steps
    for step in steps:
        words = shlex.split(step.command)
        assert words[0] == "mneme"
        typer.main.get_command(app).commands[words[1]].make_context(words[1], words[2:])
        assert step.command in render_html(report).replace("&#39;", "'").replace("&#34;", '"')


def test_side_effects_are_measured_and_taken_out_again() -> None:
    commands = [step.command for step in next_steps(sample_report(command=COMMAND))]
    assert commands[0].startswith("mneme measure world-a") or commands[0].startswith("mneme measure models")
    assert "mneme repair --from runs/mine" in commands
    assert [step.command for step in next_steps(without_purpose())][1] == f"{COMMAND} --intended biology"


def test_open_areas_ask_for_more_text() -> None:
    step = next_steps(unsettled())[0]
    assert "about 40" not in step.command
    assert "40 passages more" in step.why
    assert step.command == "mneme audit base tuned --corpus text.txt --out runs/mine --tokens 499968"
    assert next_steps(unsettled(command=f"{COMMAND} --quick"))[0].command == COMMAND


def test_quiet_fine_tunes_get_a_gate_and_equal_models_nothing_to_type() -> None:
    assert next_steps(quiet())[-1].command == "mneme gate runs/mine --policy policy.yaml"
    assert [step.command for step in next_steps(sample_report(verdict="no detectable change", effects=[]))] == [""]


def test_what_could_not_be_judged_has_its_own_place() -> None:
    page = render_html(unsettled())
    assert [effect.more_passages for effect in not_judged(unsettled())] == [40]
    changed, open_, then, after = (page.index(f'id="{name}"') for name in ("effects", "open", "next", "latents-title"))
    assert changed < open_ < then < after
    assert "only a loss of 31 % or more would have been seen; about 40 more passages would settle it" in page
    assert 'id="open"' not in render_html(sample_report(absent=[]))


def test_cost_has_five_named_steps() -> None:
    spent = {"survey-0000": 1.0, "words-0001": 2.0, "words-0000": 3.0, "dictionary-change-1": 4.0, "causal-1": 0.5}
    spent |= {"purposeless-0": 0.25, "layers": 0.125}
    assert steps_of(spent) == {
        "Reading areas": 5.0,
        "Surveying the text": 1.125,
        "Learning directions": 4.0,
        "Checking directions": 0.5,
        "Null checks": 0.25,
    }
    assert list(steps_of({"other_stage": 1.0, "survey-1": 2.0})) == ["Surveying the text", "other stage"]
    page = render_html(sample_report(), spent)
    assert "Reading areas" in page
    assert "words-0000" not in page


def test_latents_that_no_person_can_read_stand_below() -> None:
    best, second, third, mean = latents()
    mute = best.model_copy(
        update={"id": "L2.99", "description_score": 0.55, "description": "of and the", "change_energy": 0.9}
    )
    assert [legible(one) for one in (best, mute, third, mean)] == [True, False, False, True]
    page = render_html(sample_report(latents=[mute, best, second, third, mean]))
    table = page[page.index('id="latents-title"') :]
    assert table.index("Compounds that an enzyme") < table.index("of and the")
    assert table.count("no words fit") == 2
