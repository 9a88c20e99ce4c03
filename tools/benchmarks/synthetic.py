"""Synthetic people, drawn for training."""

from benchmarks.clock import Figure, medians_s
from meshrec.body import load_body_model
from meshrec.data.augment import AugmentConfig
from meshrec.data.synthetic.people import SyntheticLoader
from meshrec.data.synthetic.settings import SyntheticConfig

BATCH = 64
THREADS = 2


def people(repeats: int) -> Figure:
    """Crops of 224 a second by two threads, all stages: poses, bodies, grounds, things, light, joints, visibility."""
    loaders = [
        SyntheticLoader(SyntheticConfig(), load_body_model(), 224, AugmentConfig(), workers=workers, ahead=0)
        for workers in (THREADS, 1)
    ]
    steps = iter(range(10**9))
    runs = [lambda loader=loader: loader.take(next(steps), slice(0, BATCH)) for loader in loaders]
    ours_s, peer_s = medians_s(*runs, repeats=repeats)
    note = f"{THREADS} threads, batches of {BATCH}, nothing made ahead"
    return Figure(BATCH / ours_s, "people/s", BATCH / peer_s, "one thread", note, more_is_better=True)
