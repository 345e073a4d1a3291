"""ExecutionContract: what NIR cannot say about how a graph is to be run.

NIR describes continuous-time neurons; it has no field for the time step, the order of operations in a step, the encoder, the
readout, bit widths or rounding. Two programs that read one graph and guess these differently give different spikes. The
contract states them. It travels in the NIR file's metadata and as a JSON file beside it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snn_export.export.targets import ChipName
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec


class Quantisation(BaseModel):
    """Integer grid of a deployment. Every field names a rule of the chip, not a preference.

    scale: real value 1.0 on a population's grid; v_real = v / (64 * scale).
    binding: the limit that keeps the population's scale from growing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: ChipName
    weight_bits: int = Field(ge=1, le=8)
    weight_rounding: Literal["nearest_on_grid"] = "nearest_on_grid"
    decay_rounding: Literal["toward_zero"] = "toward_zero"
    current_overflow: Literal["wrap_24_bit"] = "wrap_24_bit"
    membrane_overflow: Literal["saturate_24_bit"] = "saturate_24_bit"
    scale: dict[str, float]
    binding: dict[str, str]


class FileReference(BaseModel):
    """A file named by content. The path is relative to the deployment's own file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str


class Lineage(BaseModel):
    """Where a deployment came from: passes it went through, and the files of its earlier forms.

    files: by role: "student" the trained module's checkpoint, "float" the deployment before quantisation; of a fine-tuned one
        "quantised_student", the parameters behind it, and "searched", the deployment they started from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    passes: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    """Fingerprints (SHA-256) of the deployments this one was made from, oldest first."""
    files: dict[str, FileReference] = Field(default_factory=dict)

    @property
    def fine_tuned(self) -> bool:
        """Whether a trained module stands behind the integers: they differ from the float network's on purpose."""
        return "fine_tune" in self.passes or "quantised_student" in self.files


class ExecutionContract(BaseModel):
    """Semantics of a deployment. Immutable; passes make a changed copy with ``model_copy(update=...)``.

    Attributes:
        dt: seconds per step.
        steps: T, steps per inference.
        latency: steps from the input to each population on hardware where every synapse takes one step. Traces are
            shown in local time, with this lag removed.
        neurons: behaviour of every population, by NIR node name. The integer decays are authoritative; tau is derived.
        origin: name of each population in the network it was read from.
        quantisation: None while the parameters are floats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    dt: float = Field(gt=0)
    dt_unit: Literal["s"] = "s"
    steps: int = Field(ge=1, le=1_000_000)
    step_order: tuple[Literal["integrate"], Literal["fire"], Literal["reset"]] = ("integrate", "fire", "reset")
    fire: Literal["v > threshold"] = "v > threshold"
    synaptic_latency: Literal[1] = 1
    latency: dict[str, int]
    encoder: EncoderSpec
    neurons: dict[str, NeuronSpec]
    readout: ReadoutSpec
    origin: dict[str, str] = Field(default_factory=dict)
    quantisation: Quantisation | None = None
    lineage: Lineage = Lineage()

    @model_validator(mode="after")
    def _consistent(self) -> ExecutionContract:
        if not math.isfinite(self.dt):
            raise ValueError("dt is not finite")
        if self.readout.node not in self.neurons:
            raise ValueError(f"the readout {self.readout.node!r} is not one of the populations {sorted(self.neurons)}")
        return self
