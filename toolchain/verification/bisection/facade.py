"""The library's ``bisect``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.verification.bisection.finding import Bisection, bisect_backends
from snn_export.verification.bisection.repro import check_folder, write_repro


def bisect(
    deployment: Deployment,
    inputs: NDArray[Any],
    *,
    reference: str = "loihi",
    target: str = "lava",
    output: str | os.PathLike[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    time_limit: float | None = None,
) -> Bisection:
    """The smallest sub-graph, the shortest input and the fewest neurons on which two backends still part.

    Args:
        deployment: that both run.
        inputs: (B, *shape) or (T, B, *shape), real units.
        reference: backend whose runs count as expected.
        target: the other one.
        output: folder for a bug report, written where they part: network, input, both runs, and a script that shows them.
        options: per backend, as in :func:`snn_export.simulate`.
        time_limit: seconds after which the smallest case so far is taken.

    Returns:
        Bisection: ``.diverged``, ``.case.deployment``, ``.case.inputs``, ``.first``, ``.minimal``, ``.folder``.

    Raises:
        UserError: SNX007, SNX510, SNX511, SNX027 for a folder that holds something else; whatever keeps the network from running.
        BackendError: a backend is missing, or broke on the whole network.
    """
    folder = None if output is None else Path(output)
    if folder is not None:
        check_folder(folder)
    found = bisect_backends(deployment, inputs, reference, target, options=options, time_limit=time_limit)
    return write_repro(found, folder) if folder is not None and found.diverged else found
