"""Every command and option, in one place; the README's reference is generated from here."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL = (
    "a model that ships (s4d-digits, …), a checkpoint (a file, or a folder of mamba_ssm or "
    "transformers), an exported folder, or a model.toml"
)
DATA = "digits, mnist:FOLDER, npz:FILE, python:FILE.py:FUNCTION, text:PATH, or pydoc"
LIMIT = "use N samples of the {}: a seeded sample of whole groups, each class in its share"
TARGETS = "vllm, compressed-tensors, modelopt, torchao, llama.cpp"


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
        _profile,
        _search,
        _eval,
        _cost,
        _program,
        _export,
        _generate,
        _bench,
        _report,
        _dashboard,
        _train,
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


def _model(sub: argparse.ArgumentParser, *, optional: bool = False) -> None:
    sub.add_argument("model", metavar="MODEL", nargs="?" if optional else None, help=MODEL)
    _norm(sub)


def _norm(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--norm",
        choices=("pre", "post"),
        help="where a state-spaces/s4 checkpoint has its LayerNorm (default: post)",
    )


def _data(sub: argparse.ArgumentParser, *, required: bool = True) -> None:
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


def _plan(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--plan",
        metavar="PLAN",
        help="a preset (quamba, …: see `sensprobe presets`), or the path of a plan.json, such as a "
        "search writes (RUN/plans/12KiB.json)",
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


def _json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--json", action="store_true", help="one JSON document on stdout, nothing else"
    )


def _run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run folder")


def _reuse(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--reuse",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="believe the evaluations of this run of the same model and data (repeatable)",
    )


def _allow_code(sub: argparse.ArgumentParser, who: str = "the run") -> None:
    sub.add_argument(
        "--allow-code",
        action="store_true",
        help=f"run the Python code that {who} names, from now on while it does not change",
    )


def _sites(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("sites", help="every site: shape, kind, bytes at full precision")
    _model(sub)
    _json(sub)


def _presets(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("presets", help="known recipes that --plan takes by name")
    sub.add_argument("model", metavar="MODEL", nargs="?", help=f"say what each costs on {MODEL}")
    sub.add_argument("--batch", type=int, default=1, help="sequences whose state is counted")
    _json(sub)


def _profile(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("profile", help="what each part or site loses in each scheme")
    _model(sub)
    _data(sub)
    sub.add_argument("--scheme", action="append", default=[], help="a scheme to try (repeatable)")
    sub.add_argument(
        "--by", choices=("part", "site"), default="part", help="what is perturbed together"
    )
    sub.add_argument(
        "--method",
        choices=("measured", "divergence", "taylor"),
        default="measured",
        help="run each one (divergence: compare outputs alone), or estimate all from one gradient",
    )
    sub.add_argument("--limit", type=int, metavar="N", help=LIMIT.format("split"))
    _run(sub)
    _reuse(sub)
    _json(sub)


def _search(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "search", help="the best plan for each budget, confirmed on unseen data"
    )
    _run(sub)
    for kind, what in (
        ("budget", "weights and state together"),
        ("weight-budget", "weights alone"),
        ("state-budget", "state alone"),
    ):
        repeat = "append" if kind == "budget" else "store"
        sub.add_argument(
            f"--{kind}",
            action=repeat,
            metavar="SIZE",
            help=f"limit on {what}: 12KiB, 12kB, 12288, or a part of full precision, 25%% or 8x",
        )
    sub.add_argument(
        "--max-loss",
        type=float,
        metavar="LOSS",
        help="fewest bytes that lose no more: points where the metric is read in percent (accuracy "
        "is), else the metric's own unit",
    )
    sub.add_argument(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN=SCHEME",
        help="keep these sites in this scheme",
    )
    sub.add_argument(
        "--tie", action="append", default=[], metavar="PATTERN", help="one scheme for all of these"
    )
    sub.add_argument(
        "--scheme", action="append", default=[], help="allow only these profiled schemes"
    )
    sub.add_argument(
        "--target",
        metavar="NAME",
        help=f"search only what a runtime can express: {TARGETS}",
    )
    sub.add_argument("--batch", type=int, default=1, help="sequences whose state is counted")
    sub.add_argument(
        "--count-states",
        choices=("held", "packed"),
        help="bytes of states: what steps hold here, and no scheme that they hold in full (held, "
        "the default), or what a plan packs, for a runtime that serves whole sequences in chunks "
        "(packed, and with --target)",
    )
    sub.add_argument(
        "--method",
        choices=("gains", "direct", "frontier", "exhaustive"),
        default="gains",
        help="how plans are proposed",
    )
    sub.add_argument(
        "--evaluations",
        type=int,
        metavar="N",
        help="full evaluations to spend (default: 100; of exhaustive every plan, up to 100,000)",
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PLAN",
        help="measure a preset or a plan.json beside the search (repeatable)",
    )
    sub.add_argument("--limit", type=int, metavar="N", help=LIMIT.format("search split"))
    sub.add_argument(
        "--no-confirm", action="store_true", help="leave the confirmation split unseen"
    )
    _reuse(sub)
    _allow_code(sub)
    _json(sub)


def _eval(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("eval", help="score one plan, on data or on tasks of lm-eval")
    sub.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"{MODEL}; left out with --data: those of --run"
    )
    _norm(sub)
    _data(sub, required=False)
    _plan(sub)
    sub.add_argument(
        "--split",
        choices=("train", "calibration", "search", "confirmation"),
        help="which samples (default: confirmation, which profile and search do not see)",
    )
    sub.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=LIMIT.format("split") + "; of a task its first N documents",
    )
    sub.add_argument("--batch", type=int, default=1, help="sequences whose state the cost counts")
    sub.add_argument(
        "--compare", action="store_true", help="also run full precision on the same samples"
    )
    sub.add_argument(
        "--per-class",
        action="store_true",
        help="also recall, precision and F1 of each class, of classification",
    )
    sub.add_argument(
        "--dead-band",
        action="store_true",
        help="also count how often rounding keeps the state from moving, on 8 samples",
    )
    sub.add_argument("--run", type=Path, metavar="DIR", help="keep the evaluation in this run")
    _reuse(sub)
    _allow_code(sub)
    _tasks(sub)
    _json(sub)


def _tasks(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group(
        "tasks of lm-eval, for language models (--data is then what static ranges are read from)"
    )
    group.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="TASK",
        help="a task, group or pattern of lm-eval, or a YAML file (repeatable); those of "
        "SENSPROBE_DATA/lm_tasks run from files: blimp, arc_easy, piqa, lambada_openai",
    )
    group.add_argument(
        "--include", type=Path, metavar="DIR", help="a folder of more tasks, as YAML"
    )
    group.add_argument(
        "--num-fewshot", type=int, metavar="N", help="solved examples before each question"
    )
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="sequences run together (default: 256)"
    )


def _cost(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("cost", help="bytes of a plan, from shapes alone")
    _model(sub)
    _plan(sub)
    sub.add_argument("--batch", type=int, default=1, help="sequences whose state is counted")
    _json(sub)


def _program(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("program", help="the operations of a streaming step, as text")
    _model(sub)
    _plan(sub)
    sub.add_argument("--batch", type=int, default=1, help="sequences a step takes")


def _export(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("export", help="a chosen plan as a folder that loads anywhere")
    _run(sub)
    sub.add_argument(
        "--plan",
        required=True,
        metavar="NAME",
        help="a candidate (p17), a budget (12KiB), what --also measured (quamba), or the plan.json "
        "of any of these (RUN/plans/12KiB.json)",
    )
    sub.add_argument(
        "--for",
        dest="target",
        metavar="NAME",
        help=f"write it for another runtime, and print what that cannot express: {TARGETS}",
    )
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    _allow_code(sub)
    _json(sub)


def _generate(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "generate", help="text from a language model, an exported one from packed memory"
    )
    sub.add_argument("model", metavar="MODEL", help=MODEL)
    _plan(sub)
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
    _json(sub)


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
    _model(sub, optional=True)
    _plan(sub)
    sub.add_argument("--data", metavar="DATA", help=f"where a plan is to be calibrated: {DATA}")
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
    _json(sub)


def _report(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("report", help="tables, and figures as HTML and PNG")
    _run(sub)
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: RUN/report)"
    )
    _json(sub)


def _train(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("train", help="train a model at full precision from a recipe")
    sub.add_argument(
        "study", metavar="STUDY", help="a recipe that ships (s4d-digits, …) or a TOML file"
    )
    sub.add_argument("--data", metavar="DATA", help="overrides the recipe's source: " + DATA)
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for weights (default: runs/STUDY)"
    )
    sub.add_argument(
        "--restart", action="store_true", help="start afresh instead of going on where it stopped"
    )
    _allow_code(sub, "the recipe")
    _json(sub)


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
    _json(sub)
