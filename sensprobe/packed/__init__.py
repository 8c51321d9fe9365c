"""Exported models that run from packed memory: weights as in the file, states as the cost counts
them.

A whole sequence decodes one weight at a time and computes what the simulation computes, to the bit.
A streaming step is one call of a kernel (`sensprobe_kernels.program`) that reads packed weights and
states as they are; sums over inputs have an order of their own there. With exact states its outputs
are within float32 of the simulation's. A rounded state is chaotic in the order of sums: a value in
the middle between two codes may go to either, and the sequence goes on from there. Integers are
multiplied by integers as such (`sensprobe.ops.linear`).
On a GPU whole sequences run so, too.
"""

from sensprobe.packed.arena import Arena
from sensprobe.packed.device import DeviceStream, device_stream_of, lacking
from sensprobe.packed.holding import Holding, unpacked_bytes
from sensprobe.packed.stream import PackedState, Slots, Stream, stream_of

__all__ = [
    "Arena",
    "DeviceStream",
    "Holding",
    "PackedState",
    "Slots",
    "Stream",
    "device_stream_of",
    "lacking",
    "stream_of",
    "unpacked_bytes",
]
