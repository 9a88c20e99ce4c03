"""One thread: the tensors of the tests are small, and waiting for other threads costs more than it brings."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small_pictures():
    """Pictures of a quarter of the size that people get: they are drawn faster."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("meshrec.data.record_writer.PICTURE_PX", "meshrec.data.synthetic.stored.PICTURE_PX"):
            patch.setattr(name, 96)
        patch.setattr("meshrec.data.synthetic.stored.DRAWN_PX", 98)
        yield
