"""What SpikingJelly's own NIR import makes of files: ``python spikingjelly_imports.py FOLDER`` in SpikingJelly's environment.

FOLDER holds ``<name>.nir``, graphs of one node called "node", and ``<name>.npy``, (T, B, *shape) to step them on. One line of
JSON: by name ``module`` (type and constants of what was made) and ``outputs``, or ``raises``.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from spikingjelly.activation_based.nir_exchange import import_from_nir

CONSTANTS = ("tau", "decay_input", "c_decay", "v_decay", "v_threshold", "v_reset", "norm_type", "groups")


def look(path: Path) -> dict[str, Any]:
    """One file."""
    try:
        made = import_from_nir(nir.read(path, type_check=False), dt=1e-3)
        module, state, outputs = made.get_submodule("node"), None, []
        inner = getattr(module, "module", module)
        for x in np.load(path.with_suffix(".npy"), allow_pickle=False).astype(np.float32):
            y, state = made(torch.from_numpy(x), state)
            outputs.append(y.detach().tolist())
    except (ValueError, NotImplementedError, TypeError, RuntimeError) as error:
        return {"raises": f"{type(error).__name__}: {error}"}
    constants = {name: getattr(inner, name) for name in CONSTANTS if hasattr(inner, name)}
    return {"module": type(inner).__name__, **constants, "outputs": outputs}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({path.stem: look(path) for path in sorted(Path(sys.argv[1]).glob("*.nir"))}) + "\n")
