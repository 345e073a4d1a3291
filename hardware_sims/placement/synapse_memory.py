"""Memory that synapses take, in bits, and the encoding that takes the fewest.

A chip holds one list of synapses per input axon. An entry is a weight, a delay where the layer has delays, and in sparse lists
the index of its neuron::

    sparse    n entries of weight + delay + index         n synapses of the source neuron into the part
    dense     N entries of weight + delay                 N neurons of the part
    shared    as sparse, but one list for all axons of a convolution that reach the same kernel positions; or, where the chip
              stores the kernel itself, one weight for each of its positions and channels

Widths and rounding are the chip's (:class:`snn_export.hardware_sims.chips.chip_table.SynapseTable`, with its source).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.chips.chip_table import Encoding, SynapseTable
from snn_export.hardware_sims.placement.reach import Box, Reach, size_of
from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class Stored:
    """How a weight layer's synapses into one part are stored: encoding, bits of all of it, bits of an index (0: none)."""

    encoding: Encoding
    bits: int
    index_field: int


def narrowest(fields: tuple[int, ...], bits: int, what: str, where: str) -> int:
    """The narrowest field that holds ``bits``.

    Raises:
        UserError: SNX458 where none does.
    """
    fitting = [field for field in fields if field >= bits]
    if not fitting:
        raise UserError(
            "SNX458", f"{what} of {bits} bits", where=where, why=f"the chip's fields for it hold up to {max(fields)} bits",
            fix="quantise with fewer weight bits, or choose another chip",
        )  # fmt: skip
    return min(fitting)


def list_bits(sizes: NDArray[np.int64], entry: int, table: SynapseTable) -> int:
    """Bits of lists with these numbers of entries, ``entry`` bits each."""
    whole, rest = np.divmod(sizes, table.block_entries) if table.block_entries else (np.zeros_like(sizes), sizes)
    full = _rounded(np.int64(table.block_entries * entry + table.block_header), table.word)
    last = np.where(rest > 0, _rounded(rest * entry + table.block_header, table.word), 0)
    return int((whole * full + last).sum())


def _rounded(bits: NDArray[np.int64] | np.int64, word: int) -> NDArray[np.int64]:
    return np.asarray(-(-bits // word) * word, np.int64)


def cheapest(reach: Reach, sizes: NDArray[np.int64], box: Box, base: int, weight: int, delay: int, table: SynapseTable) -> Stored:
    """The encoding with the fewest bits of those that the chip has; ties go to the first of sparse, dense, shared.

    Args:
        reach: the weight layer.
        sizes: synapses of each source neuron that reaches the part.
        box: the part of its target.
        base: neurons that lie before the part on its core.
        weight: bits of a weight field.
        delay: bits of a delay field.
        table: the chip's memory.
    """
    neurons = size_of(box)
    reached = max(base + neurons - 1, 0).bit_length()
    index = min((field for field in table.index_fields if field >= reached), default=reached)
    found = [Stored("sparse", list_bits(sizes, weight + delay + index, table), index)]
    if "dense" in table.encodings:
        found.append(Stored("dense", list_bits(np.full_like(sizes, neurons), weight + delay, table), 0))
    if "shared" in table.encodings and table.kernel_once:
        kernel = reach.kernel(box)
        if kernel is not None:
            found.append(Stored("shared", list_bits(np.array([kernel]), weight + delay, table), 0))
    elif "shared" in table.encodings:
        lists = reach.shared(box, base, table.base_reach)
        if lists is not None:
            found.append(Stored("shared", list_bits(lists, weight + delay + index, table), index))
    return min(found, key=lambda stored: stored.bits)
