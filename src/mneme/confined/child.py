"""The program of the confined process: patterns and templates of strangers run here, under a limit of time and memory.

Started by path and isolated (`python -I`), it imports neither torch nor mneme and opens no file. It reads requests from stdin
and writes answers to stdout, each a JSON object behind its length: {"task", …} in, {"value"}, {"refused"} or {"exceeded"} out.
"""

import json
import math
import re
import resource
import struct
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

MEMORY = 2**30
"""Address space in bytes: Python, jinja2 and tokenizers take 0.2 GB of it, the longest published template a few MB more."""
SECONDS = 2
"""CPU seconds of one request; rendering a published template takes about a millisecond."""
_FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError),
    SyntaxError,
)
"""What a template or pattern that fails raises; the errors of jinja2 are made ValueErrors."""
LONGEST = 2**25
"""Characters of a rendered conversation: more than any model reads."""


def main() -> None:
    """Answers requests until stdin ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.path += [path for path in json.loads(sys.argv[1]) if path not in sys.path]
    _send({"value": "ready"})
    while (request := _receive()) is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = math.ceil(used.ru_utime + used.ru_stime) + SECONDS
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)  # under `ulimit -t`, as batch systems set it, it may not be raised
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))  # at the limit the kernel ends this process
        _send(_answered(request))


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": TASKS[request.pop("task")](**request)}
    except MemoryError:
        return {"exceeded": f"it needs more than {MEMORY >> 20} MB"}
    except RecursionError:
        return {"exceeded": "it calls itself without end"}
    except OverflowError as error:
        return {"exceeded": str(error)[:200]}
    except _FAILURES as error:
        return {"refused": _said(error)}
    except BaseException as error:  # a bare Exception of the tokenizers library, or a panic, which is not even that
        _send({"ended": _said(error)})
        raise


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:400]


def render_template(template: str, variables: dict[str, Any]) -> str:
    """A chat template filled in, as transformers fills it in."""
    return _rendered(_compiled, template, variables)


def fill(template: str, values: dict[str, Any]) -> str:
    """A template of an lm-eval task filled in with the fields of a sample, as lm-eval does it."""
    return _rendered(_task_template, template, values)


def _rendered(compiled: Callable[[str], Any], template: str, values: dict[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        text: str = compiled(template).render(**values)
    except TemplateError as error:
        raise ValueError(_said(error)) from error
    if len(text) > LONGEST:
        raise OverflowError(f"it writes more than {LONGEST:,} characters")
    return text


def match(patterns: list[str], names: list[str]) -> None:
    """Tries every pattern on every name; what comes of it does not matter, only that it ends."""
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error:
            continue
        for name in names:
            compiled.match(name)


def tokenize(tokenizer: str, texts: list[str]) -> None:
    """Reads the JSON of a tokenizer and encodes every text."""
    from tokenizers import Tokenizer

    read = Tokenizer.from_str(tokenizer)
    for text in texts:
        read.encode(text)


TASKS: dict[str, Callable[..., Any]] = {"render": render_template, "fill": fill, "match": match, "tokenize": tokenize}


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """{% generation %} marks what the assistant says; the text is that of its body."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    class PublicNamespace(Namespace):
        """A namespace whose names do not begin with an underscore, as transformers has it."""

        def __init__(*args: Any, **names: Any) -> None:
            space, *given = args
            Namespace.__init__(space)
            for name, value in dict(*given, **names).items():
                space[name] = value

        def __setitem__(self, name: str, value: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise SecurityError(f"a template may not store {name!r}")
            super().__setitem__(name, value)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def as_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = as_json
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": lambda *args, **names: dict(*args, **names),
        "namespace": PublicNamespace,
    }
    return environment.from_string(template)


@lru_cache(maxsize=8)
def _task_template(template: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
        return re.sub(pattern, repl, string, count=count)

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = regex_replace
    return environment.from_string(template)


def _receive() -> dict[str, Any] | None:
    head = sys.stdin.buffer.read(8)
    if len(head) < 8:
        return None
    found: dict[str, Any] = json.loads(sys.stdin.buffer.read(struct.unpack("<Q", head)[0]))
    return found


def _send(answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    sys.stdout.buffer.write(struct.pack("<Q", len(body)) + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
