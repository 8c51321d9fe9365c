"""The output of commands: renderables from the documents that jobs return.

`sensprobe.report` is imported where a result is shown: commands without tables do not wait for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensprobe.cli.show_scores import on_devices, score, stability, table
from sensprobe.errors import RunError
from sensprobe.runs import Run
from sensprobe.scores.metrics import info_in
from sensprobe.units import duration
from sensprobe.units import size_text as size


def sites(model: str, rows: list[dict[str, Any]]) -> RenderableType:
    """Every site; the types and bytes of the file beside float32's where they are others."""
    from sensprobe.report.values import digits

    differs = any(row["stored_bytes"] != row["full_bytes"] for row in rows)
    made = table(
        ("site", "left"),
        ("part", "left"),
        ("kind", "left"),
        ("shape", "left"),
        *((("stored", "left"), ("bytes", "right")) if differs else ()),
        ("float32", "right"),
        *((("lowest", "right"), ("highest", "right")) if "low" in rows[0] else ()),
        title=f"{model}: {len(rows)} sites",
    )
    for row in rows:
        shape = " × ".join(map(str, row["shape"])) + (" complex" if row["complex"] else "")
        kept = [size(row[key]) if row[key] else "–" for key in ("stored_bytes", "full_bytes")]
        cells = [row["stored_dtype"], *kept] if differs else kept[1:]
        cells += [digits(row[key], 3) for key in ("low", "high") if key in row]
        made.add_row(row["site"], row["part"], row["kind"], shape, *cells)
    weights = [row for row in rows if row["kind"] == "weight"]
    stored, full = (sum(row[key] for row in weights) for key in ("stored_bytes", "full_bytes"))
    states = sum(row["full_bytes"] for row in rows if row["kind"] == "state")
    total = (
        f"weights {size(stored)} as stored, {size(full)} in float32; state {size(states)} a "
        "sequence in float32; activations pass through"
    )
    return Group(made, Text(total, style="dim"))


def presets(rows: list[dict[str, Any]]) -> RenderableType:
    """A block for each preset: description, source, differences, and for a model its bytes."""
    made = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        made.add_column()
    for row in rows:
        made.add_row(Text(row["name"], style="bold"), "", row["about"])
        if "cost" in row:
            cost = row["cost"]
            made.add_row(
                "",
                "bytes",
                f"{size(cost['total_bytes'])} = weights {size(cost['weight_bytes'])} + state "
                f"{size(cost['state_bytes'])} (batch {cost['batch']})",
            )
        if "why_not" in row:
            made.add_row("", "not", Text(row["why_not"], style="yellow"))
        made.add_row("", "from", Text(row["source"], style="dim"))
        made.add_row("", "ours", Text(row["differs"], style="dim"), end_section=True)
        made.add_row()
    return made


def cost(model: str, document: Mapping[str, Any]) -> RenderableType:
    columns = ("", "left"), ("", "right"), ("", "left")
    made = table(*columns, title=f"{model}, batch {document['batch']}")
    for label, key in (
        ("weights", "weight_bytes"),
        ("state, packed", "state_bytes"),
        ("total", "total_bytes"),
        ("state, as steps hold it here", "held_state_bytes"),
    ):
        made.add_row(label, f"{document[key]:,} bytes")
    made.add_row("effective bits", f"{document['effective_bits']:.3f}")
    made.add_row("bit operations a step", f"{document['bit_operations']:,}")
    for label, key in (
        (f"weights as stored ({document['stored_dtype']})", "stored_weight_bytes"),
        ("weights in float32", "full_weight_bytes"),
    ):
        ratio = document[key] / document["weight_bytes"]
        made.add_row(label, f"{document[key]:,} bytes", f"{ratio:.2f} × the plan's")
    if not document["held_why"]:
        return made
    why = document["held_why"].partition(" (")[0]
    return Group(made, Text(f"steps hold every state in float32: {why}", style="dim"))


def sensitivity(document: dict[str, Any]) -> RenderableType:
    from sensprobe.report.read import read_sensitivity
    from sensprobe.report.terminal import sensitivity_report

    return sensitivity_report(read_sensitivity(document))


def search(
    document: dict[str, Any],
    confirmed: dict[str, Any] | None,
    tuned: dict[str, Any] | None = None,
) -> Iterator[RenderableType]:
    from sensprobe.report import charts
    from sensprobe.report.drawing import text
    from sensprobe.report.read import read_confirmation, read_search, read_tuned
    from sensprobe.report.terminal import (
        chosen_table,
        compared_table,
        confirmed_table,
        frontier_table,
    )

    found = read_search(document)
    drawn = charts.frontier(found, tuned=read_tuned(tuned) if tuned else None)
    yield text.draw(drawn)
    if document.get("noise"):
        others = document["noise"]["draws"]
        unseen = f"; confirmed on {others} others" if confirmed is not None else ""
        yield Text(f"under noise: {on_devices(document['noise'])}{unseen}")
    yield frontier_table(found)
    if document["chosen"]:
        yield chosen_table(found)
    if confirmed is not None and confirmed["plans"]:
        yield confirmed_table(read_confirmation(confirmed))
    if document.get("also"):
        confirmed_too = confirmed if confirmed and confirmed.get("also") else None
        yield compared_table(read_confirmation(confirmed_too) if confirmed_too else found)


def run_tables(run: Run) -> Iterator[RenderableType]:
    """Every table a run's results give, in the order of the main job."""
    from sensprobe.report.agreement import agreement
    from sensprobe.report.benchmarks import benchmarks_of, latest
    from sensprobe.report.prose import about_origins
    from sensprobe.report.read import read_sensitivity, read_tuned
    from sensprobe.report.terminal import agreement_line, benchmark_report, tuned_table
    from sensprobe.runs.results import NOISE_PROFILE, PROFILES

    found: dict[str, Any] = {}
    profiles = (*PROFILES, NOISE_PROFILE)
    for name in (*profiles, "search", "confirmation", "tuned"):
        with suppress(RunError):  # what is damaged is told as missing
            if isinstance(document := run.read_result(name), dict):
                found[name] = document
    for name in profiles:
        if name in found:
            yield sensitivity(found[name])
    if "sensitivity-measured" in found and "sensitivity-taylor" in found:
        pair = (read_sensitivity(found[f"sensitivity-{m}"]) for m in ("measured", "taylor"))
        yield agreement_line(agreement(*pair))
    if "search" in found:
        yield from search(found["search"], found.get("confirmation"), found.get("tuned"))
    if "tuned" in found and found["tuned"]["plans"]:
        yield tuned_table(read_tuned(found["tuned"]))
    for bench_kept in latest(benchmarks_of(run)):
        yield benchmark_report(bench_kept)
    yield from map(Text, about_origins(run.count, run.origins))


def exported(document: Mapping[str, Any]) -> RenderableType:
    return Text(
        f"{document['path']}\n"
        f"tensors {document['weight_bytes']:,} bytes, as the cost model said; header "
        f"{document['header_bytes']:,}, whole folder {document['folder_bytes']:,}\n"
        "reloaded: the same tensors and scales, to the bit\n" + stability(document)
    )


def report_files(files: Mapping[str, Any]) -> RenderableType:
    pictures = ", ".join(Path(path).name for path in files["images"])
    damaged = [why for why in files["missing"] if "cannot be read" in why]
    return Text("\n".join([f"report: {files['html']}", f"figures: {pictures}", *damaged]))


def trained(document: Mapping[str, Any]) -> RenderableType:
    metric = info_in(document)
    unit = "epochs" if "epochs" in document else "steps"
    long = f"{document[unit]:,} {unit}"
    return Text(
        f"{document['weights']}\n{document['parameters']:,} parameters, {long}\n"
        f"{metric.name}  {score(document, metric)}   "
        f"(n = {document['n']:,}, {document['split']} split)"
    )


def doctor(found: Mapping[str, Any]) -> RenderableType:
    core = table(("package", "left"), ("version", "left"))
    for package, version in found["core"].items():
        core.add_row(package, version or "MISSING: pip install -e .")
    fast = table(("operation", "left"), ("device", "left"), ("runs as", "left"))
    for row in found["implementations"]:
        fast.add_row(row["operation"], row["device"], row["name"])
    extras = table(("extra", "left"), ("version", "left"), ("adds", "left"), ("install", "left"))
    for row in found["extras"]:
        extras.add_row(
            row["package"],
            row["version"] or "–",
            row["adds"],
            Text("" if row["version"] else row["install"]),
        )
    head = (
        f"sensprobe {found['sensprobe']}, Python {found['python']}, {found['machine']}, "
        f"{found['threads']} threads, GPU: {found['cuda'] or 'none'}"
    )
    gpu = found["gpu_kernels"]
    here = "they run here" if gpu["run_here"] else f"not here: {gpu['why_not']}"
    ships = f"models that ship: {', '.join(found['models']) or 'none'}"
    data = found["data_folder"] or "not set (folder with mnist/ for recipes and studies)"
    return Group(
        Text(f"{head}\n{gpu['what']} ({here})\n"),
        core,
        Text(""),
        fast,
        Text(""),
        extras,
        Text(f"\n{ships}\nSENSPROBE_DATA: {data}"),
    )


def status(found: Mapping[str, Any]) -> RenderableType:
    """Who works on a run: a line, and a row for every process."""
    head = f"{found['run']}: {found['state']}, {found['evaluations']:,} evaluations"
    rows = found["processes"]
    if not rows:
        return Text(f"{head}; nobody works on it now.")
    shown = table(
        ("command", "left"), ("host", "left"), ("process", "right"), ("since (UTC)", "left"),
        ("evaluations", "right"), ("a minute", "right"), ("done", "right"), ("left", "right"),
    )  # fmt: skip
    for row in rows:
        rate, share, left = row["per_minute"], row["share"], row["seconds_left"]
        shown.add_row(
            row["command"],
            row["host"],
            str(row["pid"]),
            row["since"][11:19],
            f"{row['evaluations']:,}",
            "–" if rate is None else f"{rate:,.0f}",
            "–" if share is None else f"{share:.0%}",
            "–" if left is None else duration(left),
        )
    titles = [
        Text(f"{row['command']} {row['pid']}: {row['title']}") for row in rows if row["title"]
    ]
    return Group(Text(head), *titles, Text(""), shown)


def next_after_profile(run: Path, document: Mapping[str, Any]) -> str:
    return f"next: sensprobe search --run {run} --budget 4x   (a quarter of full precision)"


def next_after_search(run: Path, document: Mapping[str, Any]) -> str:
    chosen = next((c for c in document["chosen"] if c["candidate"]), None)
    if chosen is None:
        return f"next: sensprobe report --run {run}"
    files = [str(run / c["plan_file"]) for c in document["chosen"] if c["plan_file"]]
    return (
        f"plans, as --plan takes them: {', '.join(files)}\n"
        f"next: sensprobe export --run {run} --plan '{chosen['budget']}' --out exported, or "
        f"sensprobe report --run {run}"
    )


def next_after_tune(document: Mapping[str, Any], metric: str | None = None) -> str:
    """Commands as a shell takes them, a line each; those of a run need its folder alone."""
    if document["run"] is not None:
        where = ["--run", document["run"], "--plan", document["plan_in_run"]]
        commands = [["eval", *where], ["export", *where, "--out", "exported"]]
        commands.append(["report", *where[:2]])
    else:
        words = [document["weights"], "--plan", document["plan"], "--data", document["data"]]
        words += ["--data-seed", str(document["data_seed"])] if document["data_seed"] else []
        commands = [
            ["eval", *words, *(["--metric", metric] if metric else [])],
            ["export", *words, "--out", "exported"],
        ]
    lines = [f"sensprobe {shlex.join(words)}" for words in commands]
    return "next: " + "\n      ".join(lines)


def next_after_prune(
    document: Mapping[str, Any], plan: Sequence[str], metric: str | None = None
) -> str:
    """Training buys back what pruning cost, under the plan (its options) if there was one; float16
    rounds next to nothing."""
    words = [document["weights"], "--data", document["data"]]
    words += plan or ["--set", "weights=fp16"]
    words += ["--data-seed", str(document["data_seed"])] if document["data_seed"] else []
    words += ["--metric", metric] if metric else []
    return f"next: sensprobe tune {shlex.join([*words, '--out', 'tuned'])}"


def next_after_export(document: Mapping[str, Any]) -> str:
    return f"next: sensprobe eval {document['path']} --data {document['data']}"


def generation(document: dict[str, Any]) -> str:
    """A line with the speed of writing and the bytes of weights and states."""
    state = "packed" if document["packed"] else "in float32"
    return (
        f"{document['tokens']:,} tokens, {document['tokens_per_second']:,.0f} a second, after "
        f"{document['prompt_tokens']:,} read; weights {size(document['weight_bytes'])}, state "
        f"{size(document['state_bytes'])} {state}"
    )


def bench(document: dict[str, Any]) -> Iterator[RenderableType]:
    """Times, bandwidths and ratios of operations on packed memory, or of a model's steps."""
    from sensprobe.report.benchmarks import read_benchmark
    from sensprobe.report.terminal import benchmark_report

    if "model" in document:
        from sensprobe.cli.show_bench import model_bench

        yield from model_bench(document)
    else:
        yield benchmark_report(read_benchmark(document))


def next_after_bench(run: Path) -> str:
    return f"kept in {run}: sensprobe report --run {run}, or sensprobe dashboard {run}"
