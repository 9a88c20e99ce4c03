"""One thread: the tensors of the tests are small, and waiting for other threads costs more than it brings."""

import torch

torch.set_num_threads(1)
