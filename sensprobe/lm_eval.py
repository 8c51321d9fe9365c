"""lm-eval's own command line with our models in it: `python -m sensprobe.lm_eval`.

    python -m sensprobe.lm_eval --model sensprobe --model_args model=mamba-130m/,plan=w8a8 \\
        --tasks lambada_openai --limit 100

lm-eval loads no plugins, so its own `lm_eval` does not know them. `--model_args` take model (a
MODEL), plan (a preset, or a plan.json), data (what static ranges are calibrated on: text:FILE or
pydoc), norm and data_seed. Tasks of which SENSPROBE_DATA/lm_tasks has the data run from there;
`--include_path` names others in their stead. Models run on the CPU, whatever --device says.
Everything else is lm-eval's.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensprobe.cli.bar import Bar
from sensprobe.cli.console import PlainConsole
from sensprobe.errors import SensprobeError, UsageError
from sensprobe.evaluate.lm_harness import require
from sensprobe.jobs.tasks import harness_model, tell_of_ends
from sensprobe.session.open import open_calibrated

if TYPE_CHECKING:
    from sensprobe.evaluate.lm_harness.model import HarnessModel

ARGUMENTS = ("model", "plan", "data", "norm", "data_seed")


def open_model(**given: Any) -> HarnessModel:
    """The model that --model_args name. UsageError for an argument there is not, or no model."""
    batch = given.pop("batch_size", None)
    for ignored in ("device", "max_batch_size"):  # lm-eval gives cuda:0 where nothing was asked
        given.pop(ignored, None)
    if unknown := sorted(set(given) - set(ARGUMENTS)):
        raise UsageError(
            f"--model_args {', '.join(unknown)}: there are {', '.join(ARGUMENTS)}; write them as "
            "model=MODEL,plan=PLAN."
        )
    if "model" not in given:
        raise UsageError("--model_args names no model: write --model_args model=MODEL,plan=PLAN.")
    progress = Bar(PlainConsole(stderr=True))
    source, plan, applier = open_calibrated(
        str(given["model"]),
        given.get("plan"),
        given.get("data"),
        norm=given.get("norm"),
        data_seed=int(given.get("data_seed", 0)),
        progress=progress,
    )
    model = harness_model(source, applier, plan, _together(batch), progress)
    tell_of_ends(source, progress)
    return model


def _together(batch: Any) -> int | None:
    """Sequences run together; None for lm-eval's `auto` and its own default of one, which is slow
    here and changes nothing."""
    if batch in (None, 1, "1") or str(batch).startswith("auto"):
        return None
    if not str(batch).isdecimal() or int(batch) < 1:
        raise UsageError(f"--batch_size {batch}: give a whole number from 1 on, or auto.")
    return int(batch)


def main(argv: list[str] | None = None) -> int:
    """lm-eval's main; returns the exit code: 0 done, 1 failed, 2 asked for what cannot be."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        require()
        with tempfile.TemporaryDirectory() as made:
            _run(words, Path(made))
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return 130
    except Exception as error:
        if debug:
            raise
        own = isinstance(error, SensprobeError)
        sys.stderr.write(f"sensprobe.lm_eval: {'' if own else 'lm-eval says: '}{error}\n")
        return error.exit_code if isinstance(error, SensprobeError) else _code(error)
    return 0


def _code(error: Exception) -> int:
    """lm-eval raises ValueError and KeyError for what was asked wrongly."""
    return 2 if isinstance(error, ValueError | KeyError) else 1


def _run(words: list[str], folder: Path) -> None:
    from sensprobe.evaluate.lm_harness.local import write_tasks
    from sensprobe.evaluate.lm_harness.main import lm_eval_main
    from sensprobe.evaluate.lm_harness.model import register

    register(open_model)
    data = os.environ.get("SENSPROBE_DATA")
    own = write_tasks(Path(data).expanduser().resolve(), folder) if data else []
    asked = any(word.partition("=")[0] == "--include_path" for word in words)
    if own and len(words) > 1 and not asked:
        groups = [name for name in own if not name.startswith("blimp_")]
        sys.stderr.write(f"from files in {data}: {', '.join(groups)}\n")
        words = [*words, "--include_path", str(folder)]
    lm_eval_main(words)


if __name__ == "__main__":
    sys.exit(main())
