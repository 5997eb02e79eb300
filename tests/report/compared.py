"""Results of compare and compare-logs by hand; `text` stands wherever words come from outside."""

from mneme.results import TooFew
from mneme.results.compare import AreaRow, Cell, ComparedRun, Lineage, RunDifference
from mneme.results.compare_logs import Flip, JudgeAgreement, LogChange, LogComparison
from tests.report.runs import between


def sample_lineage(text: str = "plain") -> Lineage:
    """Two runs; the second damaged one area."""
    runs = [
        ComparedRun(
            name=f"{text} {name}",
            folder=text,
            base=text,
            tuned=text,
            verdict="change",
            purpose=purpose,
            side_effects=1.5,
            affected=[text] if name == "two" else [],
        )
        for name, purpose in (("one", 40.0), ("two", None))
    ]
    cells = [
        Cell(magnitude=between(0.0, 0.02, "accuracy"), finding="unaffected"),
        Cell(magnitude=between(-0.2, 0.02, "accuracy"), finding="affected"),
    ]
    return Lineage(
        relation="one base",
        runs=runs,
        areas=[
            AreaRow(area=text, kind="capability", intended=False, cells=cells, did_it=f"{text} two"),
            AreaRow(area=f"{text} gone", kind="behaviour", intended=True, cells=[Cell(magnitude=None, finding=None)] * 2),
        ],
        differences=[
            RunDifference(
                area=text,
                first=f"{text} one",
                second=f"{text} two",
                difference=between(-0.2, 0.03, "accuracy"),
                p_value=1e-6,
                q_value=1e-5,
                paired=True,
            )
        ],
        best=f"{text} one",
        best_why=text,
        notes=[text],
    )


def sample_logs(text: str = "plain") -> LogComparison:
    """Two tasks, one of which got worse; one judge beside another."""
    changes = [
        LogChange(
            task=f"{text} {number}",
            measure=text,
            primary=True,
            higher_is_better=True,
            items=40,
            first=0.8,
            second=0.5,
            change=change,
            test="exact McNemar",
            p_value=0.001,
            p_holm=p_holm,
            lost=14,
            gained=2,
            detectable=0.2,
            margin=5.0,
            equivalent=False,
            not_worse=False,
            forecast=between(-0.2, 0.03, "accuracy"),
            forecast_said=text,
        )
        for number, (change, p_holm) in enumerate(
            (
                (between(-0.3, 0.1, "accuracy", 40), 0.002),
                (TooFew(value=0.1, unit="accuracy", n=3, needed=5, of="questions"), None),
            )
        )
    ]
    return LogComparison(
        first=text,
        second=text,
        files_sha256=["ab"],
        changes=changes,
        flips=[Flip(task=text, id=text, lost=True, prompt=text, target=text, before=text, after=text)],
        judges=[JudgeAgreement(task=text, first=text, second=text, answers=80, same=0.9, kappa=0.7)],
        unpaired={text: 1},
        audit=text,
        claims=1,
        notes=[text],
    )
