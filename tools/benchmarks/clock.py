"""Sides timed in turn, so that whatever else the machine does falls on all of them."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

BLOCK_S = 0.02
"""Calls that are shorter are timed several at a time, until they fill so much."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """What was measured on both sides."""

    ours: float
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    note: str = ""
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Above 1 where ours is better."""
        if self.peer is None:
            return None
        return self.ours / self.peer if self.more_is_better else self.peer / self.ours


def medians_s(*runs: Run, repeats: int, most: int | None = None) -> list[float]:
    """Median seconds of a call of each, run in turn: A, B, A, B, ...

    All but the first may be slow and take part in `most` rounds alone. All are called before: caches fill, kernels
    compile.
    """
    blocks = [_block(run) for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats):
        sides = len(runs) if most is None or turn < most else 1
        for side in range(sides):
            times[side].append(_seconds(runs[side], blocks[side]))
    return [statistics.median(some) for some in times]


def _seconds(run: Run, calls: int = 1) -> float:
    """Mean time of so many calls."""
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls


def _block(run: Run) -> int:
    """How many calls fill a block, told by the second call of two; a call that is long by itself is made once."""
    first_s = _seconds(run)
    return 1 if first_s > 50 * BLOCK_S else math.ceil(BLOCK_S / _seconds(run))
