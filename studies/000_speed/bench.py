"""How fast is the scan with a rounded state, against loops in PyTorch and the FFT convolution?

    [SENSPROBE_DATA=DIR] python studies/000_speed/bench.py [--runs 9] [--loops 3]

Everything is timed in one run, in turns, so that a busy machine slows all alike. Times are medians
of warm runs; ratios are of medians. With data it also times a whole command, see `whole.py`.
See README.md for the method.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does, see sensprobe.cli

import numba
import torch
from torch import Tensor
from whole import DYNAMIC, STATIC, plain_loop, table

from sensprobe.models.s4d import S4DConfig
from sensprobe.models.s4d_layers import S4D
from sensprobe.numerics.rounding import min_max, scale_and_zero
from sensprobe.numerics.storage import Rounded
from sensprobe.numerics.taps import EXACT
from sensprobe.ops import diagonal_scan, modal_scan
from sensprobe.ops.convolution import fft_conv, ssm_kernel
from sensprobe.ops.diagonal_scan import reference
from sensprobe.ops.modal_scan import reference as modal_reference
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

SEQUENCES, HEADS, PAIRS, STEPS = 64, 64, 32, 784
MODES = 64
"""Of a layer of S5, as Q-S5 has it for sequential MNIST (P = 128, arXiv 2406.09477)."""
IMAGES, LAYERS, NARROW, BATCH = 10_000, 4, 16, 256

FFT = "FFT convolution, from u, A, B, C"

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(batch: int, length: int, heads: int, n: int) -> Problem:
    """Random inputs, and the decays and frequencies of S4D-Lin (arXiv 2206.11893) at dt = 0.01."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(batch, length, heads, generator=generator)
    A = torch.exp(0.01 * torch.complex(torch.full((n,), -0.5), torch.pi * torch.arange(n)))
    C = torch.randn(heads, n, generator=generator, dtype=torch.complex64)
    return u, A.expand(heads, n).contiguous(), torch.full((heads, n), 0.01 + 0j), C


def storage(text: str, p: Problem) -> Rounded:
    """A state in a scheme, calibrated where static on the last state of the exact recurrence."""
    u, A, B, C = p
    scheme = parse(text)
    site = Site("layers.0.state", Part.STATE, Kind.STATE, A.shape, (Axis.HEAD, Axis.N), True)
    if scheme.dynamic:
        return Rounded(scheme, site)
    states = diagonal_scan(u, A, B, C)[1].state
    low, high = min_max(torch.stack([states.amin(0), states.amax(0)]), scheme, site)
    return Rounded(scheme, site, *scale_and_zero(scheme, low.amin(0), high.amax(0)))


def modal_cases() -> dict[str, Callable[[], Tensor]]:
    """The recurrence of S5, which writes its states over what drives it: one run's drive is what
    the run before left. A forgets at once, so that they stay of one size."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(SEQUENCES, STEPS, 2 * MODES, generator=generator)
    A = torch.polar(torch.full((1, MODES), 0.05), 3 * torch.rand(1, MODES, generator=generator))
    site = Site("layers.0.state", Part.STATE, Kind.STATE, A.shape, (Axis.HEAD, Axis.N), True)

    def kept(text: str) -> Rounded:
        scheme = parse(text)
        end = torch.full((1, 1, 2 if scheme.parts else 1), 8.0)
        scales = () if scheme.dynamic else scale_and_zero(scheme, -end, end)
        return Rounded(scheme, site, *scales)

    storages = {"exact": None, **{text: kept(text) for text in (STATIC, DYNAMIC)}}
    for storage in storages.values():
        few = v[:2, :50].clone()
        wanted = modal_reference(few, A, storage)[0]
        assert torch.equal(modal_scan(few.clone(), A, storage)[0], wanted)
    return {
        f"S5, {MODES} modes, {text}": lambda storage=storage: modal_scan(v, A, storage)[0]
        for text, storage in storages.items()
    }


def convolutions(p: Problem) -> dict[str, Callable[[], Tensor]]:
    """The exact recurrence as FFT convolution, from (b, l, h) to (b, l, h) as the scan.

    As a textbook has it: from u, A, B and C as the scan starts, then with the kernel's spectrum
    given; as the tool runs it, kernel given; and the textbook's transforms alone, on data that lies
    as the FFT likes it.
    """
    u, A, B, C = p
    length = u.shape[1]

    def spectrum_of(K: Tensor) -> Tensor:
        return torch.fft.rfft(K, n=2 * length)

    def transforms(rows: Tensor, spectrum: Tensor) -> Tensor:
        product = torch.fft.rfft(rows, n=2 * length) * spectrum
        return torch.fft.irfft(product, n=2 * length)[..., :length]

    def textbook(spectrum: Tensor) -> Tensor:
        return transforms(u.transpose(1, 2), spectrum).transpose(1, 2).contiguous()

    K = ssm_kernel(A, B, C, length)
    spectrum, rows = spectrum_of(K), u.transpose(1, 2).contiguous()
    return {
        FFT: lambda: textbook(spectrum_of(ssm_kernel(A, B, C, length))),
        "FFT convolution, kernel's spectrum given": lambda: textbook(spectrum),
        "FFT convolution, sensprobe.ops, kernel given": lambda: fft_conv(u, K),
        "FFT convolution, its transforms alone": lambda: transforms(rows, spectrum),
    }


def medians(
    cases: dict[str, Callable[[], object]], slow: set[str], runs: int, loops: int
) -> dict[str, float]:
    """Seconds of each case: cases take turns; slow ones sit out after `loops` turns."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for name in cases.keys() - slow:
        cases[name]()
    for turn in range(runs):
        for name, case in cases.items():
            if name not in slow or turn < loops:
                start = perf_counter()
                case()
                times[name].append(perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


COLD = f"""
import sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
import bench, torch
p = bench.problem(1, 2, 2, 2)
bench.diagonal_scan
import sensprobe_kernels.ops.diagonal_scan.cpu
for text in ("exact", bench.STATIC, bench.DYNAMIC):
    kept = None if text == "exact" else bench.storage(text, p)
    start = time.perf_counter()
    bench.diagonal_scan(*p, kept)
    print(f"  {{text:34}}{{time.perf_counter() - start:7.2f}} s")
"""


def cold() -> str:
    """Seconds of the first call in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        return subprocess.run(
            [sys.executable, "-c", COLD],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def states_per_second(p: Problem, seconds: float) -> float:
    return p[0].numel() * p[1].shape[1] / seconds / 1e9


@torch.no_grad()
def main_table(runs: int, loops: int) -> None:
    p = problem(SEQUENCES, STEPS, HEADS, PAIRS)
    static, dynamic = storage(STATIC, p), storage(DYNAMIC, p)
    same = torch.equal(diagonal_scan(*p, static)[0][:2], reference(p[0][:2], *p[1:], static)[0])
    assert same, "the scan differs from the reference: no speed is reported on a wrong result"
    print(f"{SEQUENCES} sequences, {HEADS} heads, {PAIRS} pairs, {STEPS} steps\n")
    cases: dict[str, Callable[[], object]] = {
        f"reference loop, {STATIC}": lambda: reference(*p, static),
        f"plain loop, {STATIC}": lambda: plain_loop(*p, static),
        f"plain loop, {DYNAMIC}": lambda: plain_loop(*p, dynamic),
        **convolutions(p),
        "scan, exact": lambda: diagonal_scan(*p),
        f"scan, {STATIC}": lambda: diagonal_scan(*p, static),
        f"scan, {DYNAMIC}": lambda: diagonal_scan(*p, dynamic),
    }
    modal = modal_cases()
    cases |= modal
    times = medians(cases, {name for name in cases if "loop" in name}, runs, loops)
    loop, convolved = times[f"reference loop, {STATIC}"], times[FFT]
    print(f"{'':46}{'ms':>10}{'G states/s':>12}{'× reference':>13}{'× FFT':>8}")
    for name, seconds in times.items():
        if name in modal:
            rate = SEQUENCES * STEPS * MODES / seconds / 1e9
            print(f"{name:46}{1e3 * seconds:10.1f}{rate:12.2f}")
            continue
        rate = states_per_second(p, seconds)
        print(
            f"{name:46}{1e3 * seconds:10.1f}{rate:12.2f}{loop / seconds:13.1f}"
            f"{convolved / seconds:8.2f}"
        )


def model_table(runs: int) -> None:
    """What stands around the scan in a whole evaluation: copies, and the model's other layers."""
    config = S4DConfig(1, 10, d_model=NARROW, d_state=PAIRS, layers=LAYERS)
    model = random_model(config)
    p = problem(BATCH, STEPS, NARROW, PAIRS)
    x = torch.rand(BATCH, STEPS, 1)
    cases: dict[str, Callable[[], object]] = {
        "its scans": lambda: [diagonal_scan(*p) for _ in range(LAYERS)],
        "whole forward": lambda: model(x, EXACT),
    }
    with torch.no_grad():
        times = medians(cases, set(), runs, 0)
    print(f"\n{LAYERS} layers of {NARROW} heads on {IMAGES} sequences of {STEPS}, exact state")
    for name, seconds in times.items():
        print(f"  {name:34}{seconds * IMAGES / BATCH:7.2f} s")


def random_model(config: S4DConfig) -> S4D:
    """An S4D with the weights of `problem` and small random ones elsewhere."""
    _, A, B, C = problem(1, 1, config.d_model, config.d_state)
    weights = {"A": A, "B": B, "C": C}
    sites = S4D(config, {}).sites.values()
    return S4D(
        config,
        {
            s.name: weights.get(s.part, 0.1 * torch.randn(s.shape))
            for s in sites
            if s.kind is Kind.WEIGHT
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9, help="warm runs of what is fast")
    parser.add_argument("--loops", type=int, default=3, help="runs of each PyTorch loop")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, numba {numba.__version__}, {torch.get_num_threads()} threads "
        f"of {os.cpu_count()} processors, load before the run {load:.1f}\n"
    )
    main_table(arguments.runs, arguments.loops)
    model_table(arguments.runs)
    print("\nfirst call, empty cache, fresh process (compilation)")
    print(cold(), end="")
    if folder := os.environ.get("SENSPROBE_DATA"):
        table(Path(folder))


if __name__ == "__main__":
    main()
