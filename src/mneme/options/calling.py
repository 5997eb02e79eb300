"""A job takes one record; its callers write the fields as keywords."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
O = TypeVar("O")  # noqa: E741 - a record of options
R = TypeVar("R")


def taking(record: Callable[P, O], job: Callable[[O], R]) -> Callable[P, R]:
    """The function whose arguments are the fields of `record` and which calls `job` with it.

    `mneme.audit(base, tuned, seed=1)` is `run_audit(AuditOptions(base, tuned, seed=1))`. Its help is that of the job, its
    signature that of the record.
    """

    @wraps(job)
    def call(*values: P.args, **named: P.kwargs) -> R:
        return job(record(*values, **named))

    call.__name__ = call.__qualname__ = job.__name__.removeprefix("run_")
    call.__signature__ = inspect.signature(record)  # type: ignore[attr-defined]
    call.__annotations__ = {}
    return call
