"""Silence, for native code that writes to the error stream past Python."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2
"""The file descriptor of the error stream."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep from the terminal what native code writes on the error stream; exceptions pass as ever.

    The stream belongs to the whole process: what other threads write meanwhile is lost too.
    """
    sys.stderr.flush()
    terminal, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(terminal, STDERR)
        os.close(terminal)
        os.close(nowhere)
