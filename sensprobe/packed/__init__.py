"""Exported models that run on packed weights, as in the file, and packed states.

A whole sequence decodes one weight at a time and computes what the simulation computes, to the bit.
A streaming step is one program (`sensprobe_kernels.program`) that reads packed weights and states
as they are. Its sums over inputs have an order of their own: with exact states its outputs are
within float32's precision of the simulation's. A rounded state is chaotic in the order of sums: a
value midway between two codes may go to either, and the sequence goes on from there. Integers are
multiplied by integers (`sensprobe.ops.linear`). On a GPU whole sequences run as programs too.
"""

from sensprobe.packed.device import DeviceStream, device_stream_of, lacking
from sensprobe.packed.holding import Holding, unpacked_bytes
from sensprobe.packed.stream import PackedState, Slots, Stream, stream_of
from sensprobe.packed.weights import PackedWeights

__all__ = [
    "DeviceStream",
    "Holding",
    "PackedState",
    "PackedWeights",
    "Slots",
    "Stream",
    "device_stream_of",
    "lacking",
    "stream_of",
    "unpacked_bytes",
]
