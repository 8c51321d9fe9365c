"""Options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL = (
    "a model that ships (s4d-digits, …), a checkpoint (a file, or a folder of mamba_ssm or "
    "transformers), an exported folder, or a model.toml"
)
DATA = (
    "digits, mnist:FOLDER, cifar10:FOLDER, spoken-digits:PATH, keywords:FILE, listops, "
    "mackey-glass, lorenz, npz:FILE, python:FILE.py:FUNCTION, text:PATH, pydoc; options follow, as "
    "in listops,length=512"
)
LIMIT = "use N samples of the {}: a seeded sample of whole groups, each class in its share"
DEFAULT_SIZES = "rows=256,columns=256,cell_bits=2,adc_bits=8,dac_bits=8"
RUNTIMES = ("vllm", "compressed-tensors", "modelopt", "torchao", "llama.cpp")


def add_model(sub: argparse.ArgumentParser, *, optional: bool = False) -> None:
    sub.add_argument("model", metavar="MODEL", nargs="?" if optional else None, help=MODEL)
    add_norm(sub)


def add_norm(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--norm",
        choices=("pre", "post"),
        help="where a checkpoint of state-spaces/s4 or S5 has its norm (default: post, of S5 pre)",
    )


def add_data(sub: argparse.ArgumentParser, *, required: bool = True) -> None:
    sub.add_argument("--data", metavar="DATA", required=required, help=DATA)
    sub.add_argument(
        "--metric",
        metavar="METRIC",
        help="divergence or agreement (with full precision; need no labels), balanced-accuracy, f1 "
        "(macro), or your own, python:FILE.py:FUNCTION: (outputs, targets) -> one value a sample; "
        "its attributes unit and higher_is_better say what it measures",
    )
    sub.add_argument(
        "--data-seed",
        type=int,
        default=0,
        help="shuffles data without splits of its own, and draws the samples of --limit",
    )


def add_plan(sub: argparse.ArgumentParser, *, of_run: str = "") -> None:
    """--plan and --set; `of_run` says what the plan is with --run."""
    sub.add_argument(
        "--plan",
        metavar="PLAN",
        help="a preset (quamba, …: see `sensprobe presets`), or the path of a plan.json, such as a "
        f"search writes (RUN/plans/12KiB.json){of_run and '; ' + of_run}",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATTERN=SCHEME",
        help="put the sites a pattern names in a scheme, as in 'layers.*.A=int8/head/asym'; "
        "weights, states and activations name all of a kind; what a scheme does not fit is passed "
        "over",
    )


def add_draws(sub: argparse.ArgumentParser) -> None:
    devices = "devices to draw, each with its own noise (default: 10)"
    sub.add_argument("--draws", type=int, metavar="N", help=devices)
    sub.add_argument("--noise-seed", type=int, default=0, metavar="SEED", help="of the devices")


def add_noise(sub: argparse.ArgumentParser, what: str) -> None:
    sub.add_argument(
        "--noise",
        action="append",
        default=[],
        metavar="PATTERN=AMOUNT",
        help=f"{what}: a share of their range (weights=0.01), or of weights "
        "pcm(levels=16,on_off=50,t=3600), phase-change devices (repeatable)",
    )


def add_crossbar(sub: argparse.ArgumentParser, what: str) -> None:
    sub.add_argument(
        "--crossbar",
        nargs="?",
        const=DEFAULT_SIZES,
        metavar="SIZES",
        help=f"{what} (default: {DEFAULT_SIZES}; adc_pj and dac_pj are energies a conversion that "
        "you enter)",
    )


def add_inputs(sub: argparse.ArgumentParser) -> None:
    """A model, data and a plan; the first two may be those of --run."""
    sub.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"{MODEL}; left out with --data: those of --run",
    )
    add_norm(sub)
    add_data(sub, required=False)
    add_plan(sub)


def add_json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--json", action="store_true", help="one JSON document on stdout, nothing else"
    )


def add_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run folder")


def add_reuse(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--reuse",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="believe the evaluations of this run of the same model and data (repeatable)",
    )


def add_workers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--workers",
        default="1",
        metavar="N",
        help="evaluate so many plans at a time, in processes that share this machine's cores "
        "(default: 1); or on Ray: ray, ray:N (started here), ray://HOST:PORT",
    )


def add_allow_code(sub: argparse.ArgumentParser, who: str = "the run") -> None:
    sub.add_argument(
        "--allow-code",
        action="store_true",
        help=f"run the Python code that {who} names, from now on while it does not change",
    )
