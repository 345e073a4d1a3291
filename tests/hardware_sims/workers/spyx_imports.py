"""Runs in Spyx's environment: what ``spyx.nir.from_nir`` makes of each graph of a folder, as one JSON object.

``python -I spyx_imports.py WORKER FOLDER``. For each ``NAME.nir`` with its inputs ``NAME.npy`` (T, B, *shape) in NIR's order: the
modules it made and what they gave, back in NIR's order; or what it raised; or that it did not end. ``NAME.dt`` holds a dt.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np

SECONDS, BYTES = 20, 24 << 30


class EndlessError(Exception):
    """The import did not end."""


def give_up(*unused: object) -> None:
    raise EndlessError


def channels_last(x: Any) -> Any:
    return np.moveaxis(x, 2, -1) if x.ndim > 3 else x


def channels_first(x: Any) -> Any:
    return np.moveaxis(x, -1, 2) if x.ndim > 3 else x


def made_of(path: Path) -> dict[str, Any]:
    from spyx.nir import from_nir

    dt = path.with_suffix(".dt")
    inputs = channels_last(np.load(path.with_suffix(".npy"), allow_pickle=False).astype(np.float32))
    signal.alarm(2 if path.stem.startswith("endless") else SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model, outputs = from_nir(nir.read(path, type_check=False), inputs, float(dt.read_text()) if dt.exists() else 1)
    except EndlessError:
        return {"endless": True}
    except Exception as error:
        return {"raises": f"{type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)
    return {
        "modules": [type(layer).__name__ for layer in model.layers],
        "outputs": channels_first(np.asarray(outputs)).tolist(),
    }


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGALRM, give_up)
    runpy.run_path(sys.argv[1])["import_neurons"]()
    found = {path.stem: made_of(path) for path in sorted(Path(sys.argv[2]).glob("*.nir"))}
    sys.stdout.write(json.dumps(found) + "\n")
