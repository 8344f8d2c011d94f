"""Values on their way from the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Pending:
    """Named values of a step, copied from the device. If they are read a step later, the GPU need not wait.

    Args:
        names: of the values.
        values: float (n,) on the device.
    """

    def __init__(self, names: Sequence[str], values: Tensor):
        self._names, self._values, self._copied = names, values.to("cpu", non_blocking=True), None
        if values.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> dict[str, float]:
        """The values, when the device has computed them."""
        if self._copied:
            self._copied.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))
