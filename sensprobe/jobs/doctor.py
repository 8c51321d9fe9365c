"""The doctor: installed packages, fast paths that are on, and how to get what is missing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from sensprobe import ops
from sensprobe.packed import lacking
from sensprobe.zoo import recipes, shipped

CORE = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "optuna",
    "pandas",
    "plotly",
    "scikit-learn",
    "safetensors",
)
EXTRAS = {
    "optuna-dashboard": ("dashboard", "opening a run's optuna.db in a browser"),
    "streamlit": ("dashboard", "the dashboard: runs in a browser"),
    "tokenizers": ("lm", "reading text with a checkpoint's tokenizer.json"),
    "transformers": ("lm", "comparing selective models with its own (tests)"),
    "lm-eval": ("lm", "language model tasks (eval --task)"),
    "mamba-ssm": (
        "mamba",
        "Mamba's own CUDA kernels, which `bench --device cuda` runs beside ours",
    ),
    "triton": ("gpu", "kernels that run exported models on a GPU from packed memory"),
    "ray": ("cluster", "workers on Ray, here or on a cluster (--workers ray)"),
}


def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpu_kernels() -> dict[str, Any]:
    """A description of the kernels for GPUs, if they can `run_here`, and the reason if not."""
    why = _no_gpu()
    return {
        "what": "Triton kernels: exported S4D, S5, Mamba and Mamba-2 from packed memory, whole "
        "sequences and steps; what is not exported runs as the reference loop there",
        "run_here": not why,
        "why_not": why,
    }


def _no_gpu() -> str:
    """The reason that kernels for GPUs cannot run here; "" if they can."""
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA: install its CUDA build"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA GPU"
    if find_spec("triton") is None:
        return "Triton is not installed: pip install -e '.[gpu]'"
    return lacking(torch.device("cuda"))


def doctor() -> dict[str, Any]:
    """Versions, implementations, extras with what each would add, and what ships."""
    return {
        "sensprobe": installed("sensprobe"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "gpu_kernels": gpu_kernels(),
        "threads": torch.get_num_threads(),
        "core": {package: installed(package) for package in CORE},
        "implementations": [row._asdict() for row in ops.describe()],
        "extras": [
            {
                "package": package,
                "version": installed(package),
                "adds": adds,
                "install": f"pip install -e '.[{extra}]'",
            }
            for package, (extra, adds) in EXTRAS.items()
        ],
        "models": {name: str(path) for name, path in shipped().items()},
        "recipes": list(recipes()),
        "data_folder": os.environ.get("SENSPROBE_DATA"),
    }
