"""Paired answers without a model: where they lie, which areas have some, and what is judged of p(shows). How they are asked
is in `predict/probes.py`. The statistics are ours: Student's t over the prompts, widened by one that was not seen to turn.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError

from mneme.errors import BadAreas
from mneme.predict.areas import Area, Kind, PairedAnswers
from mneme.predict.verdicts import FEWEST, TAIL, Claim, Measure, p_with_interval, two_sided
from mneme.results import Estimate, TooFew
from mneme.stats import Sample, student_t_quantile, two_way
from mneme.text.yaml_files import read_yaml

PROBE_UNIT = "probability of the answer that shows it, of two"
SHIPPED = Path(__file__).parent / "probes"


def read_probes(path: Path) -> tuple[PairedAnswers, ...]:
    """Read a YAML list of {ask, shows, lacks, system}. Errors: BadAreas with the file, the entry and what was expected."""
    expected = "Expected a list of {ask, shows, lacks}: a prompt, an answer that shows the behaviour, one that does not."
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadAreas(f"{path} cannot be read ({error.strerror}). {expected}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadAreas(f"{path} is not readable YAML: {str(error).splitlines()[0]}. {expected}") from error
    return checked_probes(content, str(path))


def checked_probes(content: object, where: str) -> tuple[PairedAnswers, ...]:
    """Probes from what YAML gave. Errors: BadAreas."""
    expected = "Expected a list of {ask, shows, lacks}: a prompt, an answer that shows the behaviour, one that does not."
    if not isinstance(content, list) or not content:
        raise BadAreas(f"{where} holds no list of probes. {expected}")
    probes = []
    for number, entry in enumerate(content, 1):
        try:
            probes.append(PairedAnswers.model_validate(entry))
        except ValidationError as error:
            raise BadAreas(f"{where}, probe {number}: {error.errors()[0]['msg']}. {expected}") from error
    return tuple(probes)


@cache
def shipped_probes(name: str, kind: Kind = "behaviour") -> tuple[PairedAnswers, ...]:
    """mneme's own probes of an area of the default list, by its name and kind; none for any other."""
    folder = SHIPPED if kind == "behaviour" else SHIPPED / kind
    path = folder / f"{name.casefold().replace(' ', '-')}.yaml"
    return read_probes(path) if path.is_file() else ()


def probes_of(area: Area) -> tuple[PairedAnswers, ...]:
    """The probes of an area: its own, or mneme's; none for most capabilities, which are read at their own words."""
    return area.probes or shipped_probes(area.name, area.kind)


def read_at_own_words(area: Area) -> bool:
    """Whether the text of an area is asked for its knowledge: a capability without paired answers."""
    return area.kind == "capability" and not probes_of(area)


def probe_claim(shown: Float[ndarray, "model probe"], unit: str = PROBE_UNIT) -> Claim:
    """What is judged of a behaviour: its change, and the same without the prompt that moved most."""
    kept = np.ones(shown.shape[1], dtype=bool)
    if len(kept):
        kept[np.argmax(np.abs(shown[1] - shown[0]))] = False
    return Claim(probe_change(shown, unit), None, probe_change(shown[:, kept], unit), len(kept))


def probe_change(shown: Float[ndarray, "model probe"], unit: str = PROBE_UNIT) -> Measure | None:
    """Mean change of p(shows) over the prompts, tuned - base; None below 8 prompts.

    Student's t over the prompts, joined by one prompt in all that was not seen to turn: less is not believed.
    """
    change = shown[1] - shown[0]
    if len(change) < FEWEST:
        return None
    each = np.arange(len(change))
    found = two_way(change, each, each, unit)
    value = float(change.mean())
    error, degrees = (0.0, len(change) - 1.0) if isinstance(found, TooFew) else (found.standard_error, found.degrees)
    half = math.hypot(student_t_quantile(1 - TAIL, degrees) * error, 1 / (len(change) + 2))
    estimate = Estimate(value=value, low=max(value - half, -1.0), high=min(value + half, 1.0), unit=unit, n=len(change))
    return Measure(
        estimate=estimate,
        error=error,
        degrees=degrees,
        p_value=p_with_interval(two_sided(value, error, degrees), estimate, degrees),
        sample=Sample(values=-change, room=1 - shown[1], weights=np.ones(len(change)), first=each, second=each),
    )
