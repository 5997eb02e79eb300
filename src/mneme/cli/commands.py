"""Commands made from records of options: each option is declared once, as a field of its record."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from mneme.errors import BadOption
from mneme.options.fields import Spec, choices_of, default_of, parts_of, specs


def from_options(record: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates `body(options, **own)`: the command has the fields of `record` and, after them, the parameters of the body's
    own; the body is called with the record. Values that the record refuses end in its BadOption."""

    def made(body: Callable[..., None]) -> Callable[..., None]:
        own = [one.replace(kind=one.KEYWORD_ONLY) for one in list(inspect.signature(body).parameters.values())[1:]]

        @wraps(body)
        def command(**typed: Any) -> None:
            given = {name: typed.pop(name) for name in list(typed) if name not in {one.name for one in own}}
            body(assembled(record, given), **typed)

        parameters = [*_parameters(record), *own]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return made


def assembled(record: Any, typed: dict[str, Any]) -> Any:
    """The record of what was typed; what was not stays at its default."""
    values: dict[str, Any] = {}
    for spec in specs(record):
        if spec.part is not None:
            inner = {one.name: found for one in parts_of(spec) if (found := _value(one, typed)) is not MISSING}
            values[spec.name] = replace(spec.default, **inner)
        elif spec.option is not None and (found := _value(spec, typed)) is not MISSING:
            values[spec.name] = found
    return record(**values)


def _value(spec: Spec, typed: dict[str, Any]) -> Any:
    """What was typed for one field; MISSING where its default holds."""
    assert spec.option is not None
    value = typed.get(spec.name)
    if value is None or value == []:
        return MISSING
    if spec.type is bool:
        return value if not spec.default else not value
    if spec.option.parse is None:
        return value
    try:
        return spec.option.parse(value)
    except BadOption as error:
        raise BadOption(f"{spec.flag}: {error}") from None


def _parameters(record: type) -> list[inspect.Parameter]:
    found: list[inspect.Parameter] = []
    for spec in specs(record):
        if spec.part is not None:
            told = dict(spec.part.default_told)
            for inner in parts_of(spec):
                found.append(
                    _parameter(
                        inner, getattr(spec.default, inner.name), told.get(inner.name, "") or _default_told(spec, inner)
                    )
                )
        elif spec.option is not None:
            found.append(_parameter(spec, spec.default, ""))
    return found


def _parameter(spec: Spec, default: Any, told: str) -> inspect.Parameter:
    option = spec.option
    assert option is not None
    silent = default is None or default is MISSING or isinstance(default, bool) or _told(spec, default) in ("", (), {})
    shown = told or option.default_told or not silent
    required = default is MISSING
    kind = _typed_as(spec)
    annotation: Any
    if spec.positional:
        annotation = Annotated[kind, typer.Argument(help=option.help, show_default=False)]
    else:
        bounds = _bounds(spec)
        annotation = Annotated[
            kind, typer.Option(spec.flag, help=option.help, metavar=option.metavar or None, show_default=shown, **bounds)
        ]
    start: Any = inspect.Parameter.empty if required else _start(spec, default)
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=start, annotation=annotation)


def _default_told(spec: Spec, inner: Spec) -> str:
    """What a field of a part comes to in this command, where it is left at None."""
    default = default_of(spec, inner.name)
    return "" if default is None or getattr(spec.default, inner.name) is not None else f"{default:g}"


def _start(spec: Spec, default: Any) -> Any:
    if spec.type is bool:
        return False
    if isinstance(default, Mapping) or (_is_list(spec) and spec.option is not None and spec.option.parse is None):
        return list(default) or None
    return _told(spec, default) if default is not None else None


def _told(spec: Spec, default: Any) -> Any:
    """A default as a user would type it."""
    assert spec.option is not None
    if spec.option.write is not None and default is not None:
        return ",".join(spec.option.write(default))
    return str(default) if isinstance(default, Path) else default


def _bounds(spec: Spec) -> dict[str, Any]:
    """Of a whole number, for the parser: it says what is wrong before anything is loaded, as the record would."""
    assert spec.option is not None
    if int not in _members(spec) or spec.option.parse is not None:
        return {}
    return {
        name: int(bound)
        for name, bound in (("min", spec.option.least), ("max", spec.option.most))
        if abs(bound) < 2**31  # a bound that is only there to keep a typing error out is not worth a line of help
    }


def _is_list(spec: Spec) -> bool:
    """Several words; a sequence of mappings is rows, which only Python can give."""
    sequences = [one for one in _members(spec) if get_origin(one) is Sequence]
    return any(get_origin(get_args(one)[0]) is not Mapping for one in sequences)


def _typed_as(spec: Spec) -> Any:
    """The type that the parser reads: choices, numbers and truth as they are, everything else as text."""
    assert spec.option is not None
    optional = spec.default is None
    if spec.type is bool:
        return bool
    if get_origin(spec.type) is Mapping or (_is_list(spec) and spec.option.parse is None):
        return list[str] if spec.default is MISSING else list[str] | None
    if spec.option.parse is not None:
        return str | None
    known = choices_of(spec.type)
    kind: Any = Literal[known] if known else next((one for one in (int, float) if one in _members(spec)), str)
    return kind | None if optional else kind


def _members(spec: Spec) -> tuple[Any, ...]:
    return (spec.type, *get_args(spec.type))
