"""Random numbers as functions of (seed, stream, step): nothing to save, and the same wherever work is resumed."""

from functools import lru_cache
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Int


def sequence_of(seed: int, stream: str, *place: int) -> np.random.SeedSequence:
    """The seeds of one place (a step, an index, ...) of one stream; streams are told apart by their names."""
    return np.random.SeedSequence([seed, crc32(stream.encode()), *place])


def generator_of(seed: int, stream: str, *place: int) -> np.random.Generator:
    """numpy's generator for one place of one stream."""
    return np.random.default_rng(sequence_of(seed, stream, *place))


def seed_torch(device: torch.device, seed: int, stream: str, *place: int) -> None:
    """Set torch's own generators, which dropout and its like draw from, for one place of one stream."""
    number = int(sequence_of(seed, stream, *place).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def shuffled_rows(seed: int, stream: str, step: int, batch: int, total: int) -> Int[np.ndarray, "{batch}"]:
    """The rows of the global batch `step` out of `total`, which are dealt anew each time that all have been dealt.

    A batch may end one deal and begin the next, so every row comes equally often.
    """
    places = np.arange(step * batch, (step + 1) * batch)
    deals = places // total
    rows = np.empty(batch, dtype=np.int64)
    for deal in range(deals[0], deals[-1] + 1):
        rows[deals == deal] = _deal(seed, stream, deal, total)[places[deals == deal] % total]
    return rows


@lru_cache(maxsize=2)
def _deal(seed: int, stream: str, deal: int, total: int) -> Int[np.ndarray, "{total}"]:
    return generator_of(seed, stream, deal).permutation(total)
