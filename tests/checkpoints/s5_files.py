"""S5 checkpoints as flax writes them, of random weights, and the forward pass of lindermanlab/S5.

The writer of msgpack and the forward are written from the specifications and share no code with
what reads and runs them here.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

Tree = dict[str, Any]
INPUTS, OUTPUTS, H, P, LAYERS = 2, 5, 6, 4, 2


def packed(value: Any) -> bytes:
    """msgpack as `msgpack_serialize` of flax writes it."""
    match value:
        case np.generic():  # before float, of which numpy's float64 is one
            return extension(3, array(np.asarray(value)))
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            if 0 <= value < 128:
                return bytes([value])
            return (
                (b"\xd3" + struct.pack(">q", value))
                if value < 0
                else b"\xcf" + struct.pack(">Q", value)
            )
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case complex():
            return extension(2, packed([value.real, value.imag]))
        case str():
            return text(value)
        case bytes():
            return b"\xc6" + struct.pack(">I", len(value)) + value
        case dict():
            head = (
                bytes([0x80 + len(value)])
                if len(value) < 16
                else b"\xde" + struct.pack(">H", len(value))
            )
            return head + b"".join(packed(k) + packed(v) for k, v in value.items())
        case list() | tuple():
            return bytes([0x90 + len(value)]) + b"".join(map(packed, value))
        case np.ndarray():
            return extension(1, array(value))
    raise TypeError(type(value))


def text(value: str) -> bytes:
    content = value.encode()
    head = bytes([0xA0 + len(content)]) if len(content) < 32 else b"\xd9" + bytes([len(content)])
    return head + content


def array(value: NDArray[Any]) -> bytes:
    return packed([list(value.shape), value.dtype.name, value.tobytes()])


def extension(number: int, content: bytes) -> bytes:
    sizes = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    if len(content) in sizes:
        return bytes([sizes[len(content)], number]) + content
    return b"\xc9" + struct.pack(">I", len(content)) + bytes([number]) + content


def params(
    activation: str = "half_glu1", bidirectional: bool = False, seed: int = 0, joined: bool = False
) -> Tree:
    """The `params` of ClassificationModel; `joined` has both directions in one C."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[Any]:
        return rng.normal(size=shape).astype(np.float32)

    def dense(inputs: int, outputs: int) -> Tree:
        return {
            "kernel": normal(inputs, outputs) / np.float32(inputs**0.5),
            "bias": normal(outputs) / 4,
        }

    encoder: Tree = {"encoder": dense(INPUTS, H)}
    for i in range(LAYERS):
        layer: Tree = {
            "seq": {
                "Lambda_re": -0.5 - np.abs(normal(P)) / 4,
                "Lambda_im": -np.pi * np.arange(P, dtype=np.float32) + normal(P) / 4,
                "B": normal(P, H, 2) / np.float32(H**0.5),
                "D": normal(H),
                "log_step": np.log(0.05).astype(np.float32) + normal(P, 1) / 2,
            },
            "norm": {"scale": 1 + normal(H) / 4, "bias": normal(H) / 4},
        }
        if bidirectional and not joined:
            layer["seq"] |= {"C1": normal(H, P, 2), "C2": normal(H, P, 2)}
        else:
            layer["seq"]["C"] = normal(H, 2 * P if bidirectional else P, 2)
        if activation == "full_glu":
            layer["out1"] = dense(H, H)
        if activation != "gelu":
            layer["out2"] = dense(H, H)
        encoder[f"layers_{i}"] = layer
    return {"encoder": encoder, "decoder": dense(H, OUTPUTS)}


def batch_stats(seed: int = 1) -> Tree:
    rng = np.random.default_rng(seed)
    return {
        "encoder": {
            f"layers_{i}": {
                "norm": {
                    "mean": rng.normal(size=H).astype(np.float32),
                    "var": rng.uniform(0.2, 3, size=H).astype(np.float32),
                }
            }
            for i in range(LAYERS)
        }
    }


def train_state(weights: Tree, stats: Tree | None = None) -> Tree:
    """What a TrainState's `to_state_dict` has: the moments of its optimizer beside the weights."""
    adam = {"0": {"count": np.asarray(7), "mu": weights, "nu": weights}, "1": None}
    inner = {"inner_states": {"ssm": {"inner_state": {"hyperparams": {"lr": np.float32(1e-3)},
                                                      "inner_state": adam}}}}  # fmt: skip
    state: Tree = {"step": 7, "params": weights, "opt_state": inner}
    return state if stats is None else {**state, "batch_stats": stats}


def flat(tree: Tree, mark: str = "/") -> dict[str, NDArray[Any]]:
    """Arrays by joined names."""
    out = {}
    for name, value in tree.items():
        inner = flat(value, mark) if isinstance(value, dict) else {}
        out |= {f"{name}{mark}{k}": v for k, v in inner.items()} if inner else {name: value}
    return out


# -- lindermanlab/S5, in float64 ------------------------------------------------------------------


def forward(weights: Tree, x: NDArray[Any], stats: Tree | None = None, **said: Any) -> NDArray[Any]:
    """The logits of ClassificationModel for one sequence (l, d_input), before log_softmax.

    `said` are arguments of run_train.py that differ from its defaults.
    """
    prenorm, mode = said.get("prenorm", True), said.get("mode", "pool")
    u = dense(weights["encoder"]["encoder"], x.astype(np.float64))
    for i in range(LAYERS):
        layer = weights["encoder"][f"layers_{i}"]
        running = stats and stats["encoder"][f"layers_{i}"]["norm"]
        v = norm(layer["norm"], u, running, said) if prenorm else u
        u = u + gated(layer, ssm(layer["seq"], v, said), said)
        u = u if prenorm else norm(layer["norm"], u, running, said)
    return dense(weights["decoder"], u.mean(0) if mode == "pool" else u[-1])


def dense(p: Tree, u: NDArray[Any]) -> NDArray[Any]:
    return u @ p["kernel"].astype(np.float64) + p["bias"]


def norm(p: Tree, u: NDArray[Any], running: Tree | None, said: Tree) -> NDArray[Any]:
    if running is not None:
        scaled = (u - running["mean"]) / np.sqrt(running["var"].astype(np.float64) + 1e-5)
    else:
        centred = u - u.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + said.get("eps", 1e-6))
    return scaled * p["scale"] + p["bias"]


def gelu(u: NDArray[Any], said: Tree) -> NDArray[Any]:
    if said.get("exact"):
        return u * (1 + erf(u / np.sqrt(2))) / 2
    return u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))) / 2


def gated(layer: Tree, y: NDArray[Any], said: Tree) -> NDArray[Any]:
    g = gelu(y, said)
    match said.get("activation_fn", "half_glu1"):
        case "full_glu":
            return dense(layer["out1"], g) * expit(dense(layer["out2"], g))
        case "half_glu1":
            return g * expit(dense(layer["out2"], g))
        case "half_glu2":
            return y * expit(dense(layer["out2"], g))
    return g


def ssm(p: Tree, u: NDArray[Any], said: Tree) -> NDArray[Any]:
    """discretize_zoh or discretize_bilinear, and apply_ssm step by step."""
    re = np.minimum(p["Lambda_re"], -1e-4) if said.get("clip_eigs") else p["Lambda_re"]
    A, B = re.astype(np.float64) + 1j * p["Lambda_im"], p["B"][..., 0] + 1j * p["B"][..., 1]
    step = np.exp(p["log_step"].astype(np.float64)[:, 0])
    if said.get("discretization", "zoh") == "zoh":
        A_bar = np.exp(A * step)
        B_bar = (1 / A * (A_bar - 1))[:, None] * B
    else:
        BL = 1 / (1 - step / 2 * A)
        A_bar, B_bar = BL * (1 + step / 2 * A), (BL * step)[:, None] * B
    xs = scan(A_bar, u @ B_bar.T)
    if "C1" in p or p["C"].shape[1] == 2 * len(A):
        xs = np.concatenate([xs, scan(A_bar, (u @ B_bar.T)[::-1])[::-1]], axis=-1)
    C = np.concatenate([p["C1"], p["C2"]], axis=1) if "C1" in p else p["C"]
    y = (xs @ (C[..., 0] + 1j * C[..., 1]).T).real
    return (2 * y if said.get("conj_sym", True) else y) + p["D"] * u


def scan(A_bar: NDArray[Any], drive: NDArray[Any]) -> NDArray[Any]:
    x, out = np.zeros(len(A_bar), complex), []
    for row in drive:
        x = A_bar * x + row
        out.append(x)
    return np.stack(out)
