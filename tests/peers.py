"""A second process for a training in two, which never outlives its test."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from meshrec.train import processes

WAIT = timedelta(minutes=2)
"""So long processes of tests wait for each other at most."""


def impatient() -> None:
    """Let this process, whose script a test started, wait no longer than the test."""
    processes.PATIENCE = WAIT


@contextmanager
def peer(*command: str) -> Iterator[subprocess.Popen]:
    """Python runs `command` as the second of two processes, and this one is the first, as torchrun would tell it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    environment = os.environ | both | {"OMP_NUM_THREADS": "1", "RANK": "1", "LOCAL_RANK": "1"}
    child = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes, "PATIENCE", WAIT)
            for name, value in (both | {"RANK": "0", "LOCAL_RANK": "0"}).items():
                patch.setenv(name, value)
            yield child
        said = child.communicate(timeout=WAIT.total_seconds())[1]
        assert child.returncode == 0, said
    finally:
        child.kill()
        child.communicate()
