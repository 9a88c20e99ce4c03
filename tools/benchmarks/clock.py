"""Two sides timed in turn, so that whatever else the machine does falls on both."""

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


@dataclass(frozen=True)
class Medians:
    """Seconds a call of either side."""

    ours_s: float
    peer_s: float


def in_turn(ours: Run, peer: Run, repeats: int, peer_repeats: int | None = None) -> Medians:
    """Median times of ours, peer, ours, peer, ...; a slow peer may take part in the first rounds alone.

    Both are called once before: caches fill, kernels compile.
    """
    blocks = [_block(ours), _block(peer)]
    rounds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        rounds[0].append(seconds(ours, blocks[0]))
        if turn < (peer_repeats or repeats):
            rounds[1].append(seconds(peer, blocks[1]))
    return Medians(*map(statistics.median, rounds))


def median_s(run: Run, repeats: int) -> float:
    """Median time of a warm call."""
    block = _block(run)
    return statistics.median(seconds(run, block) for _ in range(repeats))


def seconds(run: Run, calls: int = 1) -> float:
    """Mean time of so many calls."""
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls


def _block(run: Run) -> int:
    """How many calls fill a block, told by the second call of two; a call that is long by itself is made once."""
    first_s = seconds(run)
    return 1 if first_s > 50 * BLOCK_S else math.ceil(BLOCK_S / seconds(run))
