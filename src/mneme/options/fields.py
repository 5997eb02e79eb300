"""What stands beside a field of an options record: its help, its range, its name on the command line, whether it decides.

A record is a frozen dataclass. Its fields before the keyword-only ones are arguments of the command, the others options; a
field with neither `Option` nor `Part` is for callers in Python alone and is not written down.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from mneme.errors import BadOption

MOST_WHOLE = 2**31 - 1
"""Of a whole number without a bound of its own: torch, TRL and safetensors count steps, rows and tokens in 32 or 64 bits, and
nothing here has so many."""
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of one name and of a whole path at most: NAME_MAX and PATH_MAX of POSIX systems."""


@dataclass(frozen=True)
class Option:
    """How one field is documented, checked, written on a command line and kept."""

    help: str
    _: KW_ONLY
    metavar: str = ""
    flag: str = ""
    """Its name on the command line; without it the field's own with hyphens. A field that is true by default names the flag
    that turns it off."""
    least: int | float = -math.inf
    most: int | float = math.inf
    above: int | float = -math.inf
    below: int | float = math.inf
    """The range of a number: least <= x <= most, above < x < below. Infinities and NaN are in no range."""
    decides: bool = False
    """Stages that were made with another value are of no use: the value is part of their key."""
    default_told: str = ""
    """What the default comes to, where the value alone does not say."""
    parse: Callable[[str], Any] | None = None
    """From what was typed (of a repeated option: from the list of it); raises BadOption."""
    write: Callable[[Any], list[str]] | None = None
    """The reverse: what would have to be typed after the flag, once for every string."""
    shown: Callable[[str], str] | None = None
    """What may be written down of it, where it can hold a key."""


@dataclass(frozen=True)
class Part:
    """Beside a field that is a record itself: which of its fields this command has; all others keep their defaults."""

    only: tuple[str, ...] = ()
    """Names of fields; none: all."""
    defaults: Any = None
    """A record of the same kind: what its fields are where they were left at None."""
    default_told: tuple[tuple[str, str], ...] = ()
    """(field, what its default comes to here)."""


@dataclass(frozen=True)
class Spec:
    """One field, read off its record."""

    name: str
    type: Any
    """Without its annotation."""
    default: Any
    """MISSING where there is none."""
    positional: bool
    option: Option | None
    part: Part | None

    @property
    def flag(self) -> str:
        """As it is typed."""
        named = self.option.flag if self.option is not None else ""
        return named or "--" + self.name.replace("_", "-")

    @property
    def told(self) -> str:
        """As an error calls it: an argument by its name in capitals, an option as it is typed."""
        return self.name.upper() if self.positional else self.flag

    @property
    def holds_path(self) -> bool:
        """It can be the path of a file or folder."""
        return _holds_path(self.type)


def specs(record: type) -> tuple[Spec, ...]:
    """The fields of a record in their order."""
    hints = get_type_hints(record, include_extras=True)
    return tuple(_spec(field, hints[field.name]) for field in fields(record))


def _spec(field: "Field[Any]", hint: Any) -> Spec:
    told: Sequence[Any] = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    option = next((one for one in told if isinstance(one, Option)), None)
    part = next((one for one in told if isinstance(one, Part)), None)
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return Spec(field.name, plain, default, not field.kw_only, option=option, part=part)


def parts_of(spec: Spec) -> tuple[Spec, ...]:
    """The fields of the record in `spec` that its command has."""
    only = spec.part.only if spec.part is not None else ()
    return tuple(inner for inner in specs(type(spec.default)) if not only or inner.name in only)


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, or of the Literal in an optional one; empty for every other type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for inner in get_args(annotation) if (found := choices_of(inner))), ())


def _holds_path(annotation: Any) -> bool:
    return annotation is Path or any(_holds_path(inner) for inner in get_args(annotation))


def settle(record: Any) -> None:
    """To be called as `__post_init__`: parts get their command's defaults where they were left at None.

    Raises BadOption for the first field that is outside its range, is none of its choices, or is not of this command.
    """
    for spec in specs(type(record)):
        value = getattr(record, spec.name)
        if spec.part is not None:
            _check_part(spec, value)
            object.__setattr__(record, spec.name, _filled(value, spec.part.defaults))
        elif spec.option is not None:
            _check_value(spec, value)


def _filled(value: Any, defaults: Any) -> Any:
    if defaults is None:
        return value
    missing = {one.name: getattr(defaults, one.name) for one in fields(value) if getattr(value, one.name) is None}
    return replace(value, **missing)


def _check_part(spec: Spec, value: Any) -> None:
    offered = {inner.name for inner in parts_of(spec)}
    for inner in specs(type(value)):
        given = getattr(value, inner.name)
        if inner.name not in offered and given not in (getattr(spec.default, inner.name), default_of(spec, inner.name)):
            raise BadOption(
                f"{spec.name}.{inner.name} does nothing here. Expected only {', '.join(sorted(offered))} in {spec.name}; "
                "leave it out."
            )


def default_of(spec: Spec, name: str) -> Any:
    """What the field `name` of the part is where nothing else was given."""
    defaults = spec.part.defaults if spec.part is not None else None
    return getattr(defaults if defaults is not None else spec.default, name)


def _check_value(spec: Spec, value: Any) -> None:
    assert spec.option is not None
    if value is None:
        return
    known = choices_of(spec.type)
    if known and value not in known:
        raise BadOption(f"{spec.flag} {value!r}: expected one of {', '.join(map(str, known))}.")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(spec, value)
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str | Path):
            check_text(spec.told, text, path=spec.holds_path)


def _check_number(spec: Spec, value: int | float) -> None:
    assert spec.option is not None
    option = spec.option
    inside = option.least <= value <= option.most and option.above < value < option.below
    if isinstance(value, int):
        inside = inside and abs(value) <= max(MOST_WHOLE, option.most if math.isfinite(option.most) else 0)
    if not inside or not math.isfinite(value):
        told = f"{value:g}" if not isinstance(value, int) or abs(value) < 10**300 else "with hundreds of digits"
        raise BadOption(f"{spec.flag} {told}: expected a {_range_told(spec)}.")


def check_text(told: str, given: str | Path, *, path: bool) -> None:
    """Raises BadOption for words after the option `told` that can name nothing: none at all, a zero byte, and, with `path`,
    more than a file system takes."""
    words = str(given)
    if not words.strip():
        raise BadOption(f"{told} is empty. Give a value, or leave it out.")
    if "\0" in words:
        raise BadOption(f"{told} holds a zero byte, which no name and no text has. Type it again.")
    if path and (
        len(os.fsencode(words)) > LONGEST_PATH or any(len(os.fsencode(one)) > LONGEST_NAME for one in words.split(os.sep))
    ):
        raise BadOption(
            f"{told} {words[:40]}… is too long: a file's name has at most {LONGEST_NAME} bytes and a path {LONGEST_PATH:,}. "
            "Give a shorter name."
        )


def _range_told(spec: Spec) -> str:
    assert spec.option is not None
    option = spec.option
    whole = spec.type is int or int in get_args(spec.type)
    most = min(option.most, MOST_WHOLE) if whole and math.isinf(option.most) and math.isinf(option.below) else option.most
    bounds = {"from": option.least, "above": option.above, "to": most, "below": option.below}
    told = " ".join(
        f"{word} {bound:{'d' if isinstance(bound, int) else 'g'}}" for word, bound in bounds.items() if math.isfinite(bound)
    )
    return f"{'whole number' if whole else 'number'} {told}".strip()
