"""snn-export: from a trained network to a spiking one on Loihi's integer grid, with a spike-by-spike proof.

    import snn_export
    d = snn_export.load("net.nir")
    q = snn_export.quantize(d, calibration_inputs, target="loihi2")
    t = snn_export.simulate(q, inputs, backend="loihi", record=("spikes", "membrane"))
    r = snn_export.verify(q, inputs, labels, reference="loihi", targets=["lava"])

Importing this package imports nothing else; every name below is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_export.export.contract import ExecutionContract as ExecutionContract
    from snn_export.export.deployment import Deployment as Deployment
    from snn_export.hardware_sims.simulator import BackendError as BackendError
    from snn_export.hardware_sims.trace import Trace as Trace
    from snn_export.library import check as check
    from snn_export.library import fine_tune as fine_tune
    from snn_export.library import from_nir as from_nir
    from snn_export.library import from_snntorch as from_snntorch
    from snn_export.library import load as load
    from snn_export.library import quantize as quantize
    from snn_export.library import reset_periodically as reset_periodically
    from snn_export.library import save as save
    from snn_export.library import simulate as simulate
    from snn_export.library import sweep_bits as sweep_bits
    from snn_export.library import verify as verify
    from snn_export.models.diagnostics import UserError as UserError
    from snn_export.reporting.report import Report as Report
    from snn_export.verification.bisection.facade import bisect as bisect

_WHERE = {
    "load": "library",
    "save": "library",
    "from_snntorch": "library",
    "from_nir": "library",
    "check": "library",
    "quantize": "library",
    "reset_periodically": "library",
    "fine_tune": "library",
    "sweep_bits": "library",
    "simulate": "library",
    "verify": "library",
    "bisect": "verification.bisection.facade",
    "Deployment": "export.deployment",
    "ExecutionContract": "export.contract",
    "Trace": "hardware_sims.trace",
    "Report": "reporting.report",
    "UserError": "models.diagnostics",
    "BackendError": "hardware_sims.simulator",
}

__all__ = [  # noqa: RUF022 - in the order of use
    "load", "save", "from_snntorch", "from_nir", "reset_periodically", "check", "quantize", "fine_tune", "sweep_bits", "simulate",
    "verify", "bisect",
    "Deployment", "ExecutionContract", "Trace", "Report", "UserError", "BackendError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("snn-export")
    if name not in _WHERE:
        raise AttributeError(f"module 'snn_export' has no attribute {name!r}")
    return getattr(import_module(f"snn_export.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE, "__version__"])
