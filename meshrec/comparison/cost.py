"""What asking costs: seconds, and the memory that the process held meanwhile."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KB_PER_MB = 1024

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What Linux takes for: the peak of the resident memory begins anew."""


@dataclass
class Cost:
    """Of one who is asked, so far."""

    seconds: float = 0.0
    people: int = 0
    peak_mb: float = 0.0
    """The most memory that the process held, everything that was loaded before among it."""

    @contextmanager
    def of(self, people: int) -> Iterator[None]:
        """Count what happens inside as asking about so many people."""
        _forget_peak()
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.people += people
        self.peak_mb = max(self.peak_mb, peak_mb())

    def told(self) -> dict[str, float]:
        """Seconds a person, and the peak."""
        return {"seconds": self.seconds / max(self.people, 1), "peak_mb": self.peak_mb}


def peak_mb() -> float:
    """The peak of this process's resident memory, since it was last forgotten where Linux allows that."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / KB_PER_MB
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KB_PER_MB


def _forget_peak() -> None:
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return
