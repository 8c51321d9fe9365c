"""The options of the commands that share a run: profile, search, eval and export."""

from __future__ import annotations

import argparse
from pathlib import Path

from sensprobe.cli import options


def add_profile(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("profile", help="what each part or site loses in each scheme")
    options.add_model(sub)
    options.add_data(sub)
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
    sub.add_argument(
        "--noise",
        action="append",
        default=[],
        metavar="AMOUNT",
        help="in place of schemes noise: a share of the range (0.01), or pcm(…) (repeatable)",
    )
    options.add_draws(sub)
    sub.add_argument("--limit", type=int, metavar="N", help=options.LIMIT.format("split"))
    options.add_run(sub)
    options.add_reuse(sub)
    options.add_workers(sub)
    options.add_json(sub)


def add_search(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "search", help="the best plan for each budget, confirmed on unseen data"
    )
    options.add_run(sub)
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
        help=f"search only what a runtime can express: {', '.join(options.RUNTIMES)}",
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
    sub.add_argument("--limit", type=int, metavar="N", help=options.LIMIT.format("search split"))
    sub.add_argument(
        "--no-confirm", action="store_true", help="leave the confirmation split unseen"
    )
    sub.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="tune the plans found for so many epochs, and search again what is tuned",
    )
    sub.add_argument(
        "--prune",
        nargs="+",
        default=(),
        metavar="N",
        help="with --tune: models with fewer states, pruned to N of a head (S4D) or in all (S5), "
        "or fewer kernels (kernels=48, or both: 8,kernels=48), compete for the same budgets",
    )
    sub.add_argument(
        "--restart",
        action="store_true",
        help="with --tune: train afresh what was tuned before, with other epochs for example",
    )
    options.add_noise(
        sub, "evaluate everything, full precision too, under noise on the same devices"
    )
    options.add_draws(sub)
    options.add_reuse(sub)
    options.add_workers(sub)
    options.add_allow_code(sub)
    options.add_json(sub)


def add_eval(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("eval", help="score one plan, on data or on tasks of lm-eval")
    options.add_inputs(sub)
    sub.add_argument(
        "--split",
        choices=("train", "calibration", "search", "confirmation"),
        help="which samples (default: confirmation, which profile and search do not see)",
    )
    sub.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=options.LIMIT.format("split") + "; of a task its first N documents",
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
    options.add_noise(sub, "run under noise on the sites a pattern names")
    options.add_draws(sub)
    options.add_crossbar(sub, "run the plan's matrices on the tiles of a crossbar")
    sub.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="keep the evaluation in this run; --plan tuned/12KiB is a model that was tuned there",
    )
    options.add_reuse(sub)
    options.add_workers(sub)
    options.add_allow_code(sub)
    _tasks(sub)
    options.add_json(sub)


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


def add_export(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser("export", help="a plan as a folder that loads anywhere")
    options.add_model(sub, optional=True)
    sub.add_argument("--data", metavar="DATA", help=f"of MODEL: {options.DATA}")
    sub.add_argument("--data-seed", type=int, default=0, help="shuffles data without splits")
    sub.add_argument("--run", type=Path, metavar="DIR", help="a run, in place of MODEL and --data")
    options.add_plan(
        sub,
        of_run="of a run a candidate (p17), a budget (12KiB), what --also measured (quamba), the "
        "plan.json of any of these, or a model that was tuned under one (tuned/12KiB)",
    )
    sub.add_argument(
        "--for",
        dest="target",
        metavar="NAME",
        help="write it for another runtime, and print what that cannot express: "
        f"{', '.join(options.RUNTIMES)}; or as levels of the cells of a crossbar: crossbar",
    )
    options.add_crossbar(sub, "the sizes, for --for crossbar")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    options.add_allow_code(sub)
    options.add_json(sub)
