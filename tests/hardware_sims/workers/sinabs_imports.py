"""What sinabs' own NIR import makes of files: ``python sinabs_imports.py FOLDER`` in sinabs' environment.

FOLDER holds ``<name>.nir``, graphs of one node called "node", and ``<name>.npy``, (T, *shape) to step them on. One line of JSON:
by name what was made (``module``, ``fires``, ``resets``, ``outputs``), or ``raises``.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

sys.modules.setdefault("pylab", ModuleType("pylab"))

import nir  # noqa: E402
import numpy as np  # noqa: E402
import sinabs  # noqa: E402
import torch  # noqa: E402
from sinabs.nir import _import_sinabs_module as import_module  # noqa: E402


def look(path: Path) -> dict[str, Any]:
    """One file."""
    x = torch.from_numpy(np.load(path.with_suffix(".npy"), allow_pickle=False).astype(np.float32))
    try:
        graph = nir.read(path)
        made = import_module(graph.nodes["node"], 1, None)
        y, _ = sinabs.from_nir(graph, batch_size=1)(x)
    except (ValueError, AttributeError, TypeError, RuntimeError, AssertionError) as error:
        return {"raises": f"{type(error).__name__}: {error}"}
    fires = getattr(made, "spike_fn", None)
    told = {"module": type(made).__name__, "fires": fires and fires.__name__, "resets": repr(getattr(made, "reset_fn", None))}
    return {**told, "outputs": y.detach().tolist()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({path.stem: look(path) for path in sorted(Path(sys.argv[1]).glob("*.nir"))}) + "\n")
