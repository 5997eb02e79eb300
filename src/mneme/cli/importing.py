"""Loading torch and transformers without the garbage collector going through them again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Around imports: nothing is collected meanwhile, and what they made is left out of later collections, the last one of
    all at the program's end included. Saves a second of the four that a command takes to start and stop."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
