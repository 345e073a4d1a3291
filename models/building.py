"""Building a model by its name: what teachers and students share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

Model = TypeVar("Model")
Config = TypeVar("Config")


def build(
    kind: str,
    builders: Mapping[str, Callable[[Config], Model]],
    config_type: Callable[..., Config],
    name: str,
    seed: int,
    settings: Mapping[str, Any],
) -> Model:
    """The model ``name`` with initial weights decided by ``seed``; torch's global random state is left as it was.

    Args:
        kind: "teacher" or "student", for messages.
        builders: from name to a function of the config.
        config_type: makes the config from ``name`` and ``settings``.
        name: of the model.
        seed: of the initial weights.
        settings: fields of the config.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    if name not in builders:
        raise UserError(
            "SNX010", f"there is no {kind} called '{name}'", where=kind,
            why=f"{kind}s are built by name, so that a checkpoint can be built again", fix=suggestion(name, builders),
        )  # fmt: skip
    try:
        config = config_type(name=name, **settings)
    except (TypeError, ValueError) as error:
        raise UserError(
            "SNX012", f"{kind} '{name}' cannot be built from {sorted(settings)}", where=f"{kind} config", why=str(error),
            fix=f"pass input_shape and classes, and only settings that {config_type.__name__} has",
        ) from error  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builders[name](config)


def outlined(make: Callable[[], Model]) -> Model:
    """What ``make`` builds, without memory or time for its weights: for looking at its layers alone."""
    with torch.device("meta"):
        return make()
