"""Data sets by name: ``digits``, or ``KIND:PLACE`` with options behind a question mark, for instance ``images:pets?size=64``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from snn_export.data import cifar, events, hub, image_folder, mnist, shd, spoken_digits
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset
from snn_export.data.digits import load_digits
from snn_export.data.npz import load_npz
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

HUB = "hub"
"""In the place of a folder: the data comes by the ``datasets`` library."""


@dataclass(frozen=True)
class Source:
    """A data set's name taken apart. ``place`` is a path, ``hub``, or empty where ``kind`` says everything."""

    kind: str
    place: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_path(self) -> bool:
        """True where the data lies in a file or folder of the user's."""
        return bool(self.place) and not (self.place == HUB and self.kind in hub.HOSTED)

    def __str__(self) -> str:
        options = "&".join(f"{name}={value}" for name, value in self.options.items())
        return self.kind + (f":{self.place}" if self.place else "") + (f"?{options}" if options else "")


@dataclass(frozen=True)
class _Kind:
    """What stands before the colon: who loads it, what its place is called in messages, and the options it takes."""

    load: Callable[..., Dataset]
    place: str
    options: tuple[str, ...] = ("limit",)


_KINDS: Mapping[str, _Kind] = {
    "npz": _Kind(load_npz, "FILE", ()),
    "cifar10": _Kind(cifar.load_cifar10, "FOLDER"),
    "cifar100": _Kind(cifar.load_cifar100, "FOLDER"),
    "mnist": _Kind(mnist.load_mnist, "FOLDER"),
    "images": _Kind(image_folder.load_images, "FOLDER", ("size", "limit")),
    "nmnist": _Kind(partial(events.load_events, events.NMNIST), "FOLDER", ("steps", "size", "limit")),
    "dvsgesture": _Kind(partial(events.load_events, events.DVS_GESTURE), "FOLDER", ("steps", "size", "limit")),
    "cifar10dvs": _Kind(partial(events.load_events, events.CIFAR10_DVS), "FOLDER", ("steps", "size", "limit")),
    "shd": _Kind(shd.load_shd, "FOLDER", ("steps", "limit")),
    "fsdd": _Kind(spoken_digits.load_spoken_digits, "FOLDER", ("steps", "bands", "threshold", "limit")),
}


def parse(spec: str) -> Source:
    """Take ``KIND:PLACE?option=value&option=value`` apart; nothing is looked up on disk.

    A question mark in a path is no option where nothing like ``name=value`` follows it. An ``.npz`` file takes no options.

    Raises:
        UserError: SNX011 for an unknown name or a kind without its place, SNX139 for an option that it does not have.
    """
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return Source("digits")
    if kind not in _KINDS or not rest:
        names = (
            "digits",
            *(f"{name}:{known.place}" for name, known in _KINDS.items()),
            *(f"{name}:{HUB}" for name in hub.HOSTED),
        )
        near = [name for name in names if name.startswith(f"{spec.rstrip(':')}:")]
        raise UserError(
            "SNX011", f"there is no data set called '{spec}'", where="data",
            why="data is the bundled digits, or files in a place that you name behind the colon",
            fix=f"write {' or '.join(near)}" if near else suggestion(spec, names),
        )  # fmt: skip
    path, mark, tail = rest.rpartition("?")
    if kind == "npz" or not mark or not path or "=" not in tail:
        return Source(kind, rest)
    options = {}
    for item in tail.split("&"):
        name, _, value = item.partition("=")
        _number(kind, name, value)
        options[name] = value
    return Source(kind, path, options)


def load_dataset(spec: str, seed: int, validation: float = DEFAULT_VALIDATION) -> Dataset:
    """The data set that ``spec`` names.

        digits                                        bundled, 1,797 images of 8x8 pixels
        npz:FILE                                      your own arrays
        cifar10:FOLDER cifar100:FOLDER mnist:FOLDER   their standard files; ``cifar10:hub`` and so on by the datasets library
        images:FOLDER?size=64                         train/<class>/ and val/<class>/, as ImageNet and Tiny ImageNet
        nmnist:FOLDER dvsgesture:FOLDER cifar10dvs:FOLDER shd:FOLDER   events in ``?steps=`` time bins
        fsdd:FOLDER?steps=32&bands=32                 spoken digits as WAV files

    ``?limit=`` is what the arrays may take, in GiB. ``seed`` decides the split into training and validation samples,
    ``validation`` the part of the latter; the test samples do not depend on them.

    Raises:
        UserError: SNX011 for an unknown name, SNX139 for an option; SNX110 to SNX118 for arrays and SNX133 to SNX145 for files
            that cannot be used.
    """
    source = parse(spec)
    if source.kind == "digits":
        return load_digits(seed, validation)
    settings: dict[str, Any] = {name: _number(source.kind, name, value) for name, value in source.options.items()}
    if not source.is_path:
        return hub.load_hub(source.kind, seed, validation)
    if "limit" in settings:
        settings["limit_bytes"] = settings.pop("limit") << 30
    return _KINDS[source.kind].load(Path(source.place), seed, validation, **settings)


def _number(kind: str, name: str, value: str) -> int | float:
    """The value of an option: a whole number of 1 or more; ``threshold`` any positive number. SNX139."""
    known = _KINDS[kind].options
    if name in known:
        try:
            number: int | float = float(value) if name == "threshold" else int(value)
        except ValueError:
            number = 0
        if 0 < number <= 2**31 and math.isfinite(number):
            return number
    raise UserError(
        "SNX139", f"'{name}={value}' is no option of {kind}", where=f"{kind}:...?{name}={value}"[:200],
        why="whole numbers of 1 or more" if name in known else f"{kind} takes {', '.join(known) or 'none'}",
        fix=f"for instance {kind}:FOLDER?{known[0]}=64",
    )  # fmt: skip
