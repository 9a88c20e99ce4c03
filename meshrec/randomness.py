"""Random numbers as functions of (seed, stream, step): nothing to save, and the same wherever work is resumed."""

from zlib import crc32

import numpy as np
import torch


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
