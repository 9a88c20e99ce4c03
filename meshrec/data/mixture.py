"""Which people are drawn from several data sets: by ratios, as a function of the seed and the step alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from meshrec.data.records import Records
from meshrec.errors import MeshrecError
from meshrec.randomness import generator_of
from meshrec.types import Batched


@dataclass(frozen=True)
class Rows(Batched):
    """People, by where they are kept."""

    dataset: Int[Tensor, "*batch"]
    """A place among the data sets."""
    row: Int[Tensor, "*batch"]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Mixture:
    """Data sets, and how often each is drawn from; within one, everybody is drawn as often."""

    names: tuple[str, ...]
    people: tuple[int, ...]
    """How many are in each."""
    shares: tuple[float, ...]
    """They add up to one."""

    @classmethod
    def of(cls, records: Sequence[Records], ratios: Mapping[str, float]) -> "Mixture":
        """By ratios, which need not add up to one; a ratio that cannot be is a `MeshrecError`."""
        names = tuple(one.name for one in records)
        _check(names, [len(one) for one in records], ratios)
        total = sum(ratios.values())
        return cls(names, tuple(len(one) for one in records), tuple(ratios[name] / total for name in names))

    def draw(self, seed: int, step: int, batch: int) -> Rows:
        """Who is in a global batch: the place i in it is a function of (seed, step, i)."""
        chance = generator_of(seed, "mixture", step).random((batch, 2))
        dataset = np.searchsorted(np.cumsum(self.shares), chance[:, 0], side="right")
        dataset = dataset.clip(max=self._last)
        people = np.array(self.people)[dataset]
        row = (chance[:, 1] * people).astype(np.int64)
        return Rows(torch.from_numpy(dataset), torch.from_numpy(row))

    def realised(self, dataset: Int[Tensor, "*batch"]) -> dict[str, float]:
        """The share of each data set among people that were drawn."""
        counts = torch.bincount(dataset.flatten(), minlength=len(self.names)).double()
        return dict(zip(self.names, (counts / counts.sum()).tolist(), strict=True))

    @property
    def _last(self) -> int:
        """The last data set that is drawn from at all: rounding must not lead beyond it."""
        return max(place for place, share in enumerate(self.shares) if share)


def _check(names: Sequence[str], people: Sequence[int], ratios: Mapping[str, float]) -> None:
    known = ", ".join(names)
    if not names:
        raise MeshrecError("There is no data set to mix: name at least one folder of records.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise MeshrecError(f"Two data sets are called {twice[0]}; a mixture tells them by name, so give one of them.")
    if empty := [name for name, many in zip(names, people, strict=True) if not many]:
        raise MeshrecError(f"The data set {empty[0]} is empty; leave it out, or convert it again.")
    if strange := [name for name in ratios if name not in names]:
        raise MeshrecError(f"The mixture names {strange[0]}, which is none of the data sets given: {known}.")
    if missing := [name for name in names if name not in ratios]:
        raise MeshrecError(f"The mixture gives no ratio for {missing[0]}; give one for each of {known}.")
    if wrong := [name for name, ratio in ratios.items() if not 0 <= ratio < math.inf]:
        raise MeshrecError(f"The mixture's ratio for {wrong[0]} is {ratios[wrong[0]]}; it must be 0 or more.")
    if not any(ratios.values()):
        raise MeshrecError(f"Every ratio of the mixture is 0; at least one of {known} must be above.")
