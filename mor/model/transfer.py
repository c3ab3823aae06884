"""Numbers of the host on a device, without waiting for what the device is doing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sent(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device, of its shape and type."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def sent_together(
    rows: Sequence[np.ndarray], at: Sequence[np.ndarray], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows and positions of some chunks' tokens, (T,) each: one transfer for both."""
    both = sent(np.stack((np.concatenate(rows), np.concatenate(at))), device)
    return both[0], both[1]
