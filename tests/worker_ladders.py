"""What worker processes of the tests make their ladders from: see ``toolchain/test_distributed.py``."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Any

import numpy as np

from snn_export.verification.distributed import Parcel, check_facts
from snn_export.verification.sharding import Work
from tests.ladders import Faulty, Ladder, ladder

SAMPLES = 24


def small() -> Ladder:
    """The ladder that is shared; a chunk is two samples."""
    return ladder(samples=SAMPLES, chunk=2)


def with_backend(backend: Faulty) -> Work:
    """The small ladder with another faulty backend."""
    made = small()
    rungs = [replace(rung, simulator=backend) if rung.name == "faulty" else rung for rung in made.rungs]
    return replace(made, rungs=rungs).work()


def made_small(parcel: Parcel) -> Work:
    """The ladder as it is."""
    assert parcel.files == {"note": b"bytes"}
    return small().work()


class Killing(Faulty):
    """Ends its process in samples with a large first input, as the system does when memory runs out."""

    def run(self, program: Any, inputs: Any, record: Any = ()) -> Any:
        if (np.asarray(inputs).reshape(len(inputs), -1)[:, 0] > 0.9).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(program, inputs, record)


def made_killing(parcel: Parcel) -> Work:
    """A worker that is lost with some shards."""
    return with_backend(Killing(above=0.7))


class Slow(Faulty):
    """Takes its time."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return super().run(*arguments, **options)


def made_slow(parcel: Parcel) -> Work:
    """A worker that is still at it when something happens."""
    return with_backend(Slow(above=0.7))


def made_refusing(parcel: Parcel) -> Work:
    """A worker with another program."""
    check_facts({"numpy": "0.1", "torch": "2"}, {"numpy": "2.0", "torch": "2"})
    raise AssertionError
