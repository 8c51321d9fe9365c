"""Every command and option, in one place; docs/commands.md is generated from here."""

from __future__ import annotations

import argparse
from pathlib import Path

from sensprobe.cli import main_job, options


class _Parser(argparse.ArgumentParser):
    """Keeps long help readable whatever the terminal, so that generated help does not change."""

    def __init__(self, **options: object) -> None:
        options.setdefault(
            "formatter_class",
            lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=96),
        )
        super().__init__(**options)  # type: ignore[arg-type]


def build_parser() -> argparse.ArgumentParser:
    """The parser of `sensprobe`."""
    parser = _Parser(
        prog="sensprobe",
        description="Find which tensors of a state space model can live in how few bits, and "
        "prove it.",
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in (
        _sites,
        _presets,
        main_job.add_profile,
        main_job.add_search,
        main_job.add_eval,
        _cost,
        _program,
        main_job.add_export,
        _generate,
        _bench,
        _report,
        _status,
        _dashboard,
        _train,
        _tune,
        _prune,
        _demo,
        _doctor,
    ):
        add(commands)
    for sub in commands.choices.values():
        sub.add_argument("--debug", action="store_true", help="show a traceback on errors")
    return parser


def _version() -> str:
    from sensprobe import __version__

    return f"sensprobe {__version__}"


def _sites(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("sites", help="every site: shape, kind, bytes at full precision")
    options.add_model(sub)
    sub.add_argument(
        "--data",
        metavar="DATA",
        help=f"also how large values are, on the calibration split of {options.DATA}",
    )
    sub.add_argument("--data-seed", type=int, default=0, help="shuffles data without splits")
    options.add_json(sub)


def _presets(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("presets", help="published plans that --plan takes by name")
    sub.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"say what each costs on {options.MODEL}"
    )
    sub.add_argument("--batch", type=int, default=1, help="sequences whose state is counted")
    options.add_json(sub)


def _cost(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("cost", help="bytes of a plan, from shapes alone")
    options.add_model(sub)
    options.add_plan(sub)
    sub.add_argument("--batch", type=int, default=1, help="sequences whose state is counted")
    options.add_json(sub)


def _program(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("program", help="the operations of a streaming step, as text")
    options.add_model(sub)
    options.add_plan(sub)
    sub.add_argument("--batch", type=int, default=1, help="sequences a step takes")


def _generate(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "generate", help="text from a language model, an exported one from packed memory"
    )
    sub.add_argument("model", metavar="MODEL", help=options.MODEL)
    options.add_plan(sub)
    sub.add_argument(
        "--data",
        metavar="DATA",
        help="text whose calibration split fixes static ranges, for a plan that has some",
    )
    sub.add_argument("--data-seed", type=int, default=0, help="shuffles that text's documents")
    sub.add_argument("--prompt", default="", metavar="TEXT", help="what to go on from")
    sub.add_argument("--tokens", type=int, default=200, metavar="N", help="at most (default: 200)")
    sub.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="draw from softmax(logits / T); 0, the default, takes the likeliest token",
    )
    sub.add_argument("--seed", type=int, default=0, help="of what is drawn")
    sub.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default), cuda, cuda:1")
    options.add_json(sub)


def _counts(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of sequences, nor several with commas between (1,8,64)"
        )
    return tuple(int(word) for word in words)


def _bench(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "bench",
        help="how fast a model runs here under a plan, by operation; without one, operations on "
        "packed memory at the shapes of published models",
    )
    options.add_model(sub, optional=True)
    options.add_plan(sub)
    where = f"where a plan is to be calibrated: {options.DATA}"
    sub.add_argument("--data", metavar="DATA", help=where)
    sub.add_argument(
        "--length", type=int, metavar="N", help="steps of a sequence of MODEL (default: 256)"
    )
    sub.add_argument(
        "--shapes",
        action="append",
        metavar="NAME",
        help="without MODEL, of the Mambas of that size: 130m (the default), 370m, 790m, 1.4b, "
        "2.8b (repeatable)",
    )
    sub.add_argument(
        "--batch",
        type=_counts,
        default=(1,),
        metavar="N",
        help="sequences a step (default: 1); of MODEL also several: 1,8,64",
    )
    sub.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="what runs them (default: cpu)"
    )
    sub.add_argument("--run", type=Path, metavar="DIR", help="keep the results in this run")
    options.add_json(sub)


def _report(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("report", help="tables, and figures as HTML and PNG")
    options.add_run(sub)
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: RUN/report)"
    )
    options.add_json(sub)


def _status(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("status", help="who works on a run now, how fast, and how long still")
    options.add_run(sub)
    options.add_json(sub)


def _train(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("train", help="train a model at full precision from a recipe")
    sub.add_argument(
        "study", metavar="RECIPE", help="a recipe that ships (s4d-digits, …) or a TOML file"
    )
    overrides = f"overrides the recipe's source: {options.DATA}"
    sub.add_argument("--data", metavar="DATA", help=overrides)
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for weights (default: runs/RECIPE)"
    )
    sub.add_argument(
        "--restart", action="store_true", help="start afresh instead of going on where it stopped"
    )
    options.add_allow_code(sub, "the recipe")
    options.add_json(sub)


def _tune(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "tune", help="train a model under a plan, with the rounding inside the recurrence"
    )
    options.add_inputs(sub)
    sub.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="the run whose model and data these are; --plan then names a plan of its search, and "
        "the report shows what tuning gained",
    )
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: RUN/tuned/NAME)"
    )
    sub.add_argument("--epochs", type=int, default=3, metavar="N", help="passes (default: 3)")
    sub.add_argument(
        "--max-steps", type=int, metavar="N", help="end after N steps where the epochs are longer"
    )
    rate = "learning rate (default: 0.01, of text 0.002)"
    slow = "of decays and step sizes (default: 0.002, of text 0.0005)"
    sub.add_argument("--lr", type=float, metavar="RATE", help=rate)
    sub.add_argument("--ssm-lr", type=float, metavar="RATE", help=slow)
    sub.add_argument(
        "--batch", type=int, default=64, metavar="N", help="samples a step (default: 64)"
    )
    _tune_method(sub)
    sub.add_argument(
        "--teacher",
        default="",
        metavar="NAME",
        help="whose outputs are learnt beside the labels: none, self (the model at full "
        "precision) or a MODEL (default: none; self where there are no labels)",
    )
    sub.add_argument(
        "--train",
        choices=("all", "vectors"),
        default="all",
        help="what is trained: all parameters, or vectors (norms, biases and D), of which matrices "
        "are none (default: all)",
    )
    options.add_noise(sub, "train under noise, drawn anew in every step")
    sub.add_argument("--seed", type=int, default=0, help="of the order of samples, and of noise")
    sub.add_argument(
        "--trials",
        type=int,
        default=0,
        metavar="N",
        help="choose the rates, and the teacher where none is named, by N short trainings",
    )
    sub.add_argument(
        "--prune",
        metavar="N",
        help="first take states away, down to N of a head (S4D) or in all (S5), or kernels of an "
        "S4D: kernels=48, or both: 8,kernels=48",
    )
    sub.add_argument(
        "--budget", metavar="SIZE", help="refuse a plan that takes more: 12KiB, 25%% or 8x"
    )
    sub.add_argument("--limit", type=int, metavar="N", help=options.LIMIT.format("scored splits"))
    sub.add_argument(
        "--restart", action="store_true", help="start afresh instead of going on where it stopped"
    )
    options.add_allow_code(sub)
    options.add_json(sub)


def _prune(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "prune", help="take away the state variables or kernels that the outputs miss least"
    )
    sub.add_argument("model", metavar="MODEL", help=options.MODEL)
    options.add_norm(sub)
    options.add_data(sub)
    sub.add_argument(
        "--states",
        type=int,
        metavar="N",
        help="complex pairs a head that are kept (S4D), or complex modes (S5)",
    )
    sub.add_argument(
        "--kernels",
        type=int,
        metavar="N",
        help="convolution kernels that are kept, in all layers together (S4D): heads without one "
        "have no A, B, C and state",
    )
    options.add_plan(sub)
    sub.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="checkpoint to write (.safetensors)"
    )
    sub.add_argument("--limit", type=int, metavar="N", help=options.LIMIT.format("scored splits"))
    options.add_allow_code(sub)
    options.add_json(sub)


def _tune_method(sub: argparse.ArgumentParser) -> None:
    """How the parameters are trained."""
    decay = "of the average of the weights, which is what is kept (default: 0.99)"
    sub.add_argument("--average", type=float, default=0.99, metavar="SHARE", help=decay)
    rise = "share of the steps in which the rates rise (default: 0.05)"
    sub.add_argument("--warmup", type=float, default=0.05, metavar="SHARE", help=rise)
    norm = "largest norm of all gradients together, 0 for any (default: 1)"
    sub.add_argument("--clip", type=float, default=1.0, metavar="NORM", help=norm)
    sub.add_argument(
        "--parametrization",
        default="",
        metavar="NAME",
        help="continuous (A, dt and B are trained, which A and B are discretised from), discrete "
        "(S4D, S5: discretised A and B) or frozen (A and dt stay) (default: what the "
        "checkpoint holds)",
    )
    sub.add_argument(
        "--stable",
        action="store_true",
        help="keep |A| of S4D and S5 at most 1 as stored; with --noise, 3 sigma below",
    )
    sub.add_argument(
        "--ranges",
        default="watched",
        metavar="NAME",
        help="static ranges are watched before every leg, or learned, where one is the whole "
        "tensor's (default: watched)",
    )
    sub.add_argument(
        "--progressive",
        action="store_true",
        help="start integers at 8 bits, and take them away in the first half of the legs",
    )


def _demo(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("demo", help="the whole main job on a model and data that ship")
    sub.add_argument(
        "--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="the run folder"
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _dashboard(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("dashboard", help="runs in a browser: sensitivities, fronts, plans")
    sub.add_argument(
        "runs", nargs="?", default="runs", metavar="RUNS", help="a folder of runs (default: runs)"
    )
    sub.add_argument("--port", type=_port, default=8501, help="where it listens (default: 8501)")
    sub.add_argument(
        "--host",
        default="localhost",
        help="which address it listens at (default: localhost, this machine alone)",
    )
    sub.add_argument(
        "--no-browser", dest="browser", action="store_false", help="do not open a browser"
    )


def _doctor(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "doctor", help="what is installed, which fast paths are on, what is missing"
    )
    options.add_json(sub)
