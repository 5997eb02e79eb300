"""A record as JSON and back, the part of it that decides stages, and the command line that asks for the same."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

from mneme.errors import BadOption, BadRun
from mneme.options.fields import Spec, default_of, parts_of, specs

O = TypeVar("O")  # noqa: E741 - of a record of options
IN_MEMORY = "<in memory>"
"""Stands in run.json for what was given as an object of Python and not as a file: such a run cannot be asked for again."""


def stored(record: Any) -> dict[str, Any]:
    """The record as it is kept in run.json: JSON values, paths that exist here absolute, parts as objects of their own."""
    kept: dict[str, Any] = {}
    for spec in specs(type(record)):
        value = getattr(record, spec.name)
        if spec.part is not None:
            kept[spec.name] = {inner.name: _plain(getattr(value, inner.name), inner) for inner in parts_of(spec)}
        elif spec.option is not None:
            kept[spec.name] = _plain(value, spec)
    return kept


def restored(record: type[O], kept: Mapping[str, Any]) -> O:
    """The record that `stored` wrote. Raises BadRun where it is none of this kind, or held an object of Python."""
    if _in_memory(kept):
        raise BadRun("This run was given rows or objects in Python, not files, so it cannot be repeated from its folder.")
    try:
        return record(**{spec.name: _read(spec, kept[spec.name]) for spec in specs(record) if spec.name in kept})
    except (ValueError, TypeError, BadOption) as error:  # pydantic's errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise BadRun(f"The options in run.json are not those of this version of mneme ({reason}).") from error


def _read(spec: Spec, kept: Any) -> Any:
    from pydantic import TypeAdapter

    if spec.part is not None:
        return type(spec.default)(**{one.name: _read(one, kept[one.name]) for one in parts_of(spec) if one.name in kept})
    return TypeAdapter(spec.type).validate_python(kept)


def deciding(record: Any) -> dict[str, Any]:
    """The fields that decide what stages hold, by name; of parts as 'part.field'."""
    found: dict[str, Any] = {}
    for spec in specs(type(record)):
        value = getattr(record, spec.name)
        inner = parts_of(spec) if spec.part is not None else ()
        found |= {f"{spec.name}.{one.name}": _plain(getattr(value, one.name), one) for one in inner if _decides(one)}
        if _decides(spec):
            found[spec.name] = _plain(value, spec)
    return found


def _decides(spec: Spec) -> bool:
    return spec.option is not None and spec.option.decides


def command_line(command: str, record: Any) -> str:
    """What to type for the same run, quoted for a shell; options at their defaults are left out."""
    words = ["mneme", command]
    options: list[str] = []
    for spec in specs(type(record)):
        value = getattr(record, spec.name)
        if spec.part is not None:
            for inner in parts_of(spec):
                options += _typed(inner, getattr(value, inner.name), default_of(spec, inner.name))
        elif spec.positional:
            words += [] if value is None else [str(one) for one in _each(value)]
        elif spec.option is not None:
            options += _typed(spec, value, spec.default)
    return shlex.join([*words, *options])


def _typed(spec: Spec, value: Any, default: Any) -> list[str]:
    assert spec.option is not None
    if value is None or (default is not MISSING and value == default):
        return []
    if isinstance(value, bool):
        return [spec.flag]
    shown = spec.option.shown or str
    written = spec.option.write(value) if spec.option.write is not None else [shown(str(one)) for one in _each(value)]
    return [word for one in written for word in (spec.flag, one)]


def _each(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _plain(value: Any, spec: Spec) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        shown = spec.option.shown if spec.option is not None else None
        return _absolute(value) if spec.holds_path else shown(str(value)) if shown else str(value)
    if isinstance(value, Mapping) and _all_simple(value.values()):
        return {str(key): one for key, one in sorted(value.items())}
    if isinstance(value, list | tuple) and _all_simple(value):
        return [_plain(one, spec) for one in value]
    return IN_MEMORY


def _all_simple(values: Any) -> bool:
    return all(value is None or isinstance(value, str | int | float | Path) for value in values)


def _absolute(given: str | Path) -> str:
    """The absolute path of what is there; a hub name, an address and a file still to be written stay as they were given."""
    try:
        return str(Path(given).absolute()) if Path(given).exists() else str(given)
    except OSError:
        return str(given)


def _in_memory(kept: Any) -> bool:
    if isinstance(kept, Mapping):
        return any(_in_memory(value) for value in kept.values())
    return bool(kept == IN_MEMORY)
