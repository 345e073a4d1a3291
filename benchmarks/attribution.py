"""Where the changed spikes of a coarsely quantised network come from, and what the suggested fix does about them.

    snn-export init && snn-export run                      # the digits, or any other run
    python benchmarks/attribution.py [snn-export.toml] [--bits 4] [--samples 64] [--fine-tune 5]

Takes the float network of a finished run, quantises it with few bits per weight by the library, and prints what
:func:`snn_export.verification.attribution.attribute` finds on the first test samples: both orders, both increments of every
effect, their difference, what is left without it. Then the suggested fix is applied (more bits per weight), and its alternative
(fine-tuning on the coarse grid), and both are measured in the same way; accuracy is that of the whole test set.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import snn_export
from snn_export.config import load_config
from snn_export.data.dataset import Dataset
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.files import FLOAT_FILE
from snn_export.pipeline.quantising import searched
from snn_export.reporting.report import Attribution
from snn_export.verification.attribution import attribute


def accuracy(deployment: Deployment, data: Dataset, backend: str) -> str:
    """Percent of the test set."""
    predictions = snn_export.simulate(deployment, data.signal(data.test.x), backend).predictions
    return f"{100 * float(np.mean(predictions == data.test.y)):.1f}"


def effects_table(found: Attribution) -> str:
    """Every effect in forward order, as Markdown."""
    lines = [
        "| effect | forward | backward | interaction | changed without it | removed | first divergence gone | accuracy % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    lines += [
        f"| {effect.name} | {effect.forward:,} | {effect.backward:,} | {effect.interaction:,} | {effect.without:,} "
        f"| {100 * (effect.removed or 0):.1f} % | {'yes' if effect.explains_first else 'no'} | {effect.accuracy:.1f} |"
        for effect in found.effects
    ]
    sums = sum(effect.forward for effect in found.effects), sum(effect.backward for effect in found.effects)
    lines.append(f"| all | {sums[0]:,} | {sums[1]:,} | {sums[0] - sums[1]:,} | | | | |")
    return "\n".join(lines)


def layers_table(found: Attribution) -> str:
    """The cause, layer by layer."""
    cause = next((effect for effect in found.effects if effect.layers), None)
    if cause is None:
        return "No single cause, so no layer was tried alone."
    lines = [f"| {cause.name} off in | changed spikes left | numbers |", "| --- | ---: | --- |"]
    lines += [f"| {trial.layer} alone | {trial.changed:,} | {trial.told} |" for trial in cause.layers]
    return "\n".join(lines)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=Path("snn-export.toml"))
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--fine-tune", type=int, default=5, help="epochs of the alternative; 0: none")
    given = parser.parse_args()
    loaded = load_config(given.config)
    config, base = loaded.config, loaded.folder
    data = dataset(config.data.source, base, config.project.seed, config.data.validation)
    floats = nir_io.read(base / config.project.output / "export" / FLOAT_FILE)
    inputs = data.signal(data.test.x)

    def quantised(bits: int) -> Deployment:
        changed = config.quantize.model_copy(update={"weight_bits": bits})
        return searched(floats, data, config.model_copy(update={"quantize": changed}))

    def measured(deployment: Deployment) -> Attribution:
        return attribute(floats, deployment, inputs, data.test.y, samples=given.samples)

    coarse = quantised(given.bits)
    started = time.perf_counter()
    found = measured(coarse)
    seconds = time.perf_counter() - started
    share = 100 * found.changed / found.spikes
    print(f"{given.bits}-bit weights, {found.samples} samples, {floats.contract.steps} steps: {found.changed:,} changed spikes,")
    print(f"{share:.1f} % of the {found.spikes:,} of both networks; {found.remainder} unexplained; {seconds:.1f} s.\n")
    print(effects_table(found), layers_table(found), f"> {found.sentence}", f"> Fix: {found.fix}.", sep="\n\n")
    print("\nLeft out: " + "; ".join(f"{item.name} ({item.why})" for item in found.left_out) + ".")
    rows = [(f"{given.bits} bits", coarse, found)]
    rows += [(f"{bits} bits", form := quantised(bits), measured(form)) for bits in range(given.bits + 1, 9)]
    if given.fine_tune:
        tuned = snn_export.fine_tune(
            coarse, data.signal(data.train.x), data.train.y, epochs=given.fine_tune,
            validation=(data.signal(data.validation.x), data.validation.y), seed=config.project.seed,
        )  # fmt: skip
        rows.append((f"{given.bits} bits, fine-tuned for {given.fine_tune} epochs", tuned, measured(tuned)))
    print(f"\nAccuracy of the float network: {accuracy(floats, data, 'reference')} %\n")
    print(
        "| integer network | changed spikes | of the first | accuracy % | cause |", "| --- | ---: | ---: | ---: | --- |", sep="\n"
    )
    for name, form, after in rows:
        part = f"{100 * after.changed / max(1, found.changed):.1f} %"
        print(f"| {name} | {after.changed:,} | {part} | {accuracy(form, data, 'loihi')} | {after.cause or 'no single one'} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
