"""Policies: what a run has to keep to, read from YAML, every mistake in one sentence.

```yaml
not_worse_than: 5          # points: the question about every area that no rule says more of
baseline: ../runs/approved # a run that was approved: worse than that one
rules:
  - area: chemistry
    not_worse_than: 2
  - kind: behaviour
    size: 10
  - everything: true
    probability: 0.5
    power: 10
waivers:
  - area: history
    until: 2027-03-31
    reason: accepted in review 12
```
"""

import datetime
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mneme.errors import BadPolicy, one_line
from mneme.results import Record
from mneme.results.gate import Limit
from mneme.text.yaml_files import read_yaml

LIMITS: tuple[Limit, ...] = ("not_worse_than", "size", "probability", "verdict", "power")
DEFAULT_POINTS = 5.0
"""The margin of the default question, in points: what the audit calls material (decision 0005)."""
_LEAST_POINTS = 0.1
"""Below, a fraction was typed where points are expected: 0.05 for 5."""
_LARGEST = 1_000_000
"""Bytes of a policy: one line a limit, and no list of areas has thousands."""
_LONGEST = 200
"""Characters of an area's name or of a reason that are still read at a glance."""


def _shown(value: Any) -> str:
    """A value in a sentence; a collection is only named, as a few aliases in YAML can make it endless."""
    plain = isinstance(value, bool | int | float | str | datetime.date | None)
    return repr(value)[:_LONGEST] if plain else f"a {type(value).__name__}"


def _points(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number of points such as 5, found {_shown(value)}")
    if not _LEAST_POINTS <= value <= 100:
        raise ValueError(f"expected points from {_LEAST_POINTS} to 100 (5 is five percentage points), found {value!r}")
    return float(value)


def _share(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"expected a probability from 0 to 1, found {_shown(value)}")
    return float(value)


def _words(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _day(value: Any) -> Any:
    if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date):
        raise ValueError(f"expected a day such as 2027-03-31, found {_shown(value)}")
    return value


Points = Annotated[float, BeforeValidator(_points)]
Finding = Literal["affected", "unaffected", "not enough evidence"]
Named = Annotated[str, Field(min_length=1, max_length=_LONGEST)]


class Rule(Record):
    """Limits on an area, a kind of areas, or everything."""

    area: Named | None = None
    kind: Literal["capability", "behaviour", "unlisted", "measured"] | None = None
    everything: Literal[True] | None = None
    not_worse_than: Points | None = None
    """Points: the interval has to leave out that it became worse by as much."""
    size: Points | None = None
    """Points: the whole interval has to lie within as much of no change, either way."""
    probability: Annotated[float, BeforeValidator(_share)] | None = None
    """P has to stay below."""
    verdict: Annotated[tuple[Finding, ...], BeforeValidator(_words)] | None = None
    """What may be said of it."""
    power: Points | None = None
    """Points: a loss of as much would have been seen with a probability of 80 %."""

    @model_validator(mode="after")
    def _whole(self) -> "Rule":
        targets = [name for name in ("area", "kind", "everything") if getattr(self, name) is not None]
        if len(targets) != 1:
            told = " and ".join(targets) if targets else "nothing"
            raise ValueError(f"it is about {told}; expected one of area, kind, everything")
        if not self.limits():
            raise ValueError(f"it has no limit; expected one of {', '.join(LIMITS)}")
        return self

    def limits(self) -> list[Limit]:
        """The limits that it sets."""
        return [name for name in LIMITS if getattr(self, name) is not None]

    def target(self) -> str:
        """'area chemistry', 'kind behaviour', 'everything'."""
        return f"area {self.area}" if self.area else f"kind {self.kind}" if self.kind else "everything"


class Waiver(Record):
    """What is let through for a time, and why."""

    area: Named
    limit: Limit | None = None
    """None: every limit on that area."""
    until: Annotated[datetime.date, BeforeValidator(_day)]
    """The last day."""
    reason: Named


class Policy(Record):
    """Everything that a run has to keep to."""

    version: Literal[1] = 1
    not_worse_than: Points | None = DEFAULT_POINTS
    """The default question, of every area that no rule says more of; None: not asked."""
    baseline: Named | None = None
    """An approved run, from the folder of the policy: `not_worse_than` is then about the change against that run."""
    rules: tuple[Rule, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> "Policy":
        seen: set[tuple[str, str]] = set()
        for rule in self.rules:
            for limit in rule.limits():
                if (rule.target().casefold(), limit) in seen:
                    raise ValueError(f"{limit} of {rule.target()} is set twice; keep one of them")
                seen.add((rule.target().casefold(), limit))
        if self.not_worse_than is None and not self.rules:
            raise ValueError("it asks nothing: not_worse_than is null and there is no rule; set one of them")
        return self

    def limits_on(self, area: str, kind: str) -> list[tuple[Limit, Any]]:
        """(limit, value) of everything that is asked of an area: of each limit the rule that names the area, else its kind,
        else everything, else the default question."""
        name = area.casefold()
        ranked: list[Sequence[Rule]] = [
            [rule for rule in self.rules if rule.area is not None and rule.area.casefold() == name],
            [rule for rule in self.rules if rule.kind == kind],
            [rule for rule in self.rules if rule.everything],
        ]
        found: list[tuple[Limit, Any]] = []
        for limit in LIMITS:
            values = [value for rules in ranked for rule in rules if (value := getattr(rule, limit)) is not None]
            if limit == "not_worse_than" and not values and self.not_worse_than is not None:
                values = [self.not_worse_than]
            found += [(limit, values[0])] if values else []
        return found

    def names(self, area: str) -> bool:
        """A rule is about this area by name."""
        return any(rule.area is not None and rule.area.casefold() == area.casefold() for rule in self.rules)


def threshold_policy(probability: float) -> Policy:
    """`--fail-on P`: P of everything stays below, and nothing else is asked."""
    return Policy(not_worse_than=None, rules=(Rule(everything=True, probability=probability),))


def read_policy(path: Path) -> tuple[Policy, str]:
    """The policy in a YAML file, and the SHA-256 of the file. Raises BadPolicy with the file, the entry and what was
    expected."""
    if not path.is_file():
        raise BadPolicy(f"No policy at {path}. Expected a YAML file with rules, such as `not_worse_than: 5`.")
    if path.stat().st_size > _LARGEST:
        raise BadPolicy(f"{path} is larger than {_LARGEST // 1_000_000} MB, which no policy is. Give another file.")
    content = path.read_bytes()
    try:
        found = read_yaml(content.decode("utf-8"), _Once)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadPolicy(f"{path} is not readable YAML: {one_line(error)}. Mend it and try again.") from error
    if not isinstance(found, dict):
        told = "nothing" if found is None else f"a {type(found).__name__}"
        raise BadPolicy(f"{path} holds {told}, expected keys and values such as `not_worse_than: 5` or `rules:`.")
    return policy_of(found, str(path)), hashlib.sha256(content).hexdigest()


def policy_of(found: Mapping[str, Any], where: str) -> Policy:
    """The policy that these keys and values are. Raises BadPolicy with the entry and what was expected."""
    try:
        return Policy.model_validate(found)
    except ValidationError as error:
        raise BadPolicy(f"{where}: {_mistake(error)}") from error


def _mistake(error: ValidationError) -> str:
    """The first mistake, with its place and what is expected."""
    first = error.errors()[0]
    place = [f"{part + 1}" if isinstance(part, int) else str(part) for part in first["loc"]]
    where = " ".join(place).replace("rules", "rule", 1).replace("waivers", "waiver", 1) or "the policy"
    if first["type"] == "extra_forbidden":
        kinds: dict[str, type[Record]] = {"rules": Rule, "waivers": Waiver}
        known = kinds.get(str(first["loc"][0]) if len(first["loc"]) > 1 else "", Policy)
        return f"{where}: there is no such word. Expected one of {', '.join(known.model_fields)}."
    if first["type"] == "missing":
        return f"{where} is missing. A waiver needs area, until (the last day) and reason."
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}{'' if message.endswith('.') else '.'}"


class _Once(yaml.SafeLoader):
    """YAML in which a key may stand once: the second `rules:` would silently take the place of the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping. Raises ConstructorError where a key is there twice."""
        keys = [one.value for one, _ in node.value if isinstance(one, yaml.ScalarNode)]
        twice = next((key for key, times in Counter(keys).items() if times > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)
