"""How many processor threads torch uses."""

from __future__ import annotations

import os

import torch


def use_threads(wanted: int) -> int:
    """Let torch use ``wanted`` threads, 0 for all cores this process may run on; returns the number.

    Training is reproducible bit for bit for a fixed number: another one adds floats in another order.
    """
    threads = wanted or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    return threads
