"""What detected joints alone tell of a body: the answer that a look at the picture then corrects."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from meshrec.models.proxy import read_heatmaps
from meshrec.skeletons import COCO17

WIDTH = 512
BLOCKS = 4

LEAST_SURE = 1e-3
"""Confidences are told apart down to this, and as near to 1."""

LOGIT = 0.25
"""Logits of confidences are multiplied by this, so that they are about as large as places."""

TOLD = 4
"""Numbers that are told of a joint: x, y, the logit of its confidence, and whether it was found at all."""


class JointGuess(nn.Module):
    """Residual layers, 4.3 million parameters, and a hundredth of a backbone's work.

    The joints are read back from their maps, so that it takes what the backbone takes.
    """

    def __init__(self, mean: Float[Tensor, "D"]) -> None:
        """Answers are added to `mean`."""
        super().__init__()
        self.first = nn.Linear(TOLD * len(COCO17), WIDTH)
        self.blocks = nn.Sequential(*(_Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.last = nn.Linear(WIDTH, len(mean))
        self.register_buffer("mean", mean)

    mean: Tensor

    def forward(self, image: Float[Tensor, "N 18 S S"]) -> Float[Tensor, "N D"]:
        """Of proxies."""
        with torch.autocast(image.device.type, enabled=False):
            numbers = told(image[:, 1:]).to(self.first.weight.dtype)
        return self.mean + self.last(self.norm(self.blocks(self.first(numbers)))).to(self.mean.dtype)


def told(maps: Float[Tensor, "N 17 S S"]) -> Float[Tensor, "N D"]:
    """Where joints were found, in the crop from -1 to 1, and how surely; all 0 of a joint that was not."""
    points, confidence = read_heatmaps(maps)
    found = (confidence > LEAST_SURE).to(points.dtype)
    places = 2 * points / maps.shape[-1] - 1
    sure = LOGIT * confidence.clamp(LEAST_SURE, 1 - LEAST_SURE).logit()
    numbers = torch.cat([places, sure[..., None], torch.ones_like(sure)[..., None]], dim=-1)
    return (found[..., None] * numbers).flatten(1)


class _Block(nn.Module):
    """A residual layer, as transformers have them between their attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wider = nn.Linear(WIDTH, 2 * WIDTH)
        self.back = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Float[Tensor, "N W"]) -> Float[Tensor, "N W"]:
        return x + self.back(gelu(self.wider(self.norm(x))))
