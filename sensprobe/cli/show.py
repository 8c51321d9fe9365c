"""What a command prints: renderables from the documents the steps return.

`sensprobe.report` is imported where a result is shown: commands without tables do not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sensprobe.errors import RunError
from sensprobe.runs import Run

RECURRENT = "max|A|"


def _table(*columns: tuple[str, str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def size(count: float) -> str:
    """Bytes for people, exact below 10 KiB."""
    return f"{count:,.0f} B" if count < 10_240 else f"{count / 1024:,.1f} KiB"


def sites(model: str, rows: list[dict[str, Any]]) -> RenderableType:
    """Every site; the types and bytes of the file beside float32's where they are others."""
    differs = any(row["stored_bytes"] != row["full_bytes"] for row in rows)
    table = _table(
        ("site", "left"),
        ("part", "left"),
        ("kind", "left"),
        ("shape", "left"),
        *((("stored", "left"), ("bytes", "right")) if differs else ()),
        ("float32", "right"),
        title=f"{model}: {len(rows)} sites",
    )
    for row in rows:
        shape = " × ".join(map(str, row["shape"])) + (" complex" if row["complex"] else "")
        kept = [size(row[key]) if row[key] else "–" for key in ("stored_bytes", "full_bytes")]
        cells = [row["stored_dtype"], *kept] if differs else kept[1:]
        table.add_row(row["site"], row["part"], row["kind"], shape, *cells)
    weights = [row for row in rows if row["kind"] == "weight"]
    stored, full = (sum(row[key] for row in weights) for key in ("stored_bytes", "full_bytes"))
    states = sum(row["full_bytes"] for row in rows if row["kind"] == "state")
    total = (
        f"weights {size(stored)} as stored, {size(full)} in float32; state {size(states)} a "
        "sequence in float32; activations pass through"
    )
    return Group(table, Text(total, style="dim"))


def presets(rows: list[dict[str, Any]]) -> RenderableType:
    """What each recipe is, from where, and how ours differs; of a model also its bytes."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column()
    for row in rows:
        table.add_row(Text(row["name"], style="bold"), "", row["about"])
        if "cost" in row:
            cost = row["cost"]
            table.add_row(
                "",
                "bytes",
                f"{size(cost['total_bytes'])} = weights {size(cost['weight_bytes'])} + state "
                f"{size(cost['state_bytes'])} (batch {cost['batch']})",
            )
        if "why_not" in row:
            table.add_row("", "not", Text(row["why_not"], style="yellow"))
        table.add_row("", "from", Text(row["source"], style="dim"))
        table.add_row("", "ours", Text(row["differs"], style="dim"), end_section=True)
        table.add_row()
    return table


def score(document: Mapping[str, Any], metric: str) -> str:
    """A score with its error, in percent where it is an accuracy."""
    value, stderr = document["value"], document["stderr"]
    if metric == "accuracy":
        return f"{100 * value:.2f} ± {100 * stderr:.2f} %"
    return f"{value:.5g} ± {stderr:.2g}"


def change(document: Mapping[str, Any], metric: str) -> str:
    """A difference with its sign and error, in points where the metric is an accuracy."""
    value, stderr = document["value"], document["stderr"]
    if metric == "accuracy":
        return f"{100 * value:+.2f} ± {100 * stderr:.2f} points"
    return f"{value:+.3g} ± {stderr:.2g} {metric}"


def evaluation(document: Mapping[str, Any]) -> RenderableType:
    metric, cost = document["metric"], document["cost"]
    lines = [
        f"{metric}  {score(document, metric)}   "
        f"(n = {document['n']:,}, {document['split']} split of {document['data']})",
    ]
    if "difference" in document:
        gap = document["difference"]
        real = abs(gap["value"]) > 1.96 * gap["stderr"]
        verdict = "" if real else "   within the error"
        lines.append(f"against full precision  {change(gap, metric)}{verdict}")
    lines.append(
        f"bytes  {size(cost['total_bytes'])} = weights {size(cost['weight_bytes'])} + state "
        f"{size(cost['state_bytes'])} (batch {cost['batch']}), "
        f"{cost['effective_bits']:.2f} bits a value"
    )
    lines.append(stability(document["max_abs_A"]))
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if "text" in document:
        parts += _text(document["text"])
    if "dead_band" in document:
        parts += _dead_band(document["dead_band"])
    return Group(*parts)


def _dead_band(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """How often rounded states stood still, by state and by position."""
    yield Text(f"\nwrites that rounding kept from moving the state ({found['samples']} samples)\n")
    table = _table(("state", "left"), ("share", "right"))
    for name, share in found["states"].items():
        table.add_row(name, f"{100 * share:.1f} %")
    yield table
    table = _table(("steps", "right"), ("share", "right"))
    for row in found["positions"]:
        table.add_row(_span(row), f"{100 * row['share']:.1f} %")
    yield table


def _span(row: Mapping[str, Any]) -> str:
    """Positions from `first` to `last`."""
    return str(row["last"]) if row["first"] == row["last"] else f"{row['first']}–{row['last']}"


def _text(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What a score of text says beyond its headline."""
    perplexity = found["perplexity"]
    yield Text(
        f"perplexity  {perplexity['value']:.5g} ± {perplexity['stderr']:.2g} a token   "
        f"({found['tokens']:,} tokens, {found['bytes']:,} bytes)\n"
    )
    names = [n for n in ("bits_per_byte", "kl") if n in found["positions"][0]]
    heads = {"bits_per_byte": "bits a byte", "kl": "KL (nats a token)"}
    table = _table(("tokens read", "right"), *((heads[name], "right") for name in names))
    for row in found["positions"]:
        cells = [f"{row[name]['value']:.4g} ± {row[name]['stderr']:.2g}" for name in names]
        table.add_row(_span(row), *cells)
    yield table


def stability(radius: float) -> str:
    if radius > 1:
        return (
            f"{RECURRENT}  {radius:.4f}: above 1, the recurrence is UNSTABLE "
            "(errors grow with length)"
        )
    return f"{RECURRENT}  {radius:.4f}"


def cost(model: str, document: Mapping[str, Any]) -> RenderableType:
    columns = ("", "left"), ("", "right"), ("", "left")
    table = _table(*columns, title=f"{model}, batch {document['batch']}")
    for label, key in (
        ("weights", "weight_bytes"),
        ("state", "state_bytes"),
        ("total", "total_bytes"),
    ):
        table.add_row(label, f"{document[key]:,} bytes")
    table.add_row("effective bits", f"{document['effective_bits']:.3f}")
    table.add_row("bit operations a step", f"{document['bit_operations']:,}")
    for label, key in (
        (f"weights as stored ({document['stored_dtype']})", "stored_weight_bytes"),
        ("weights in float32", "full_weight_bytes"),
    ):
        ratio = document[key] / document["weight_bytes"]
        table.add_row(label, f"{document[key]:,} bytes", f"{ratio:.2f} × the plan's")
    return table


def sensitivity(document: dict[str, Any]) -> RenderableType:
    from sensprobe.report.read import read_sensitivity
    from sensprobe.report.terminal import sensitivity_report

    return sensitivity_report(read_sensitivity(document))


def search(document: dict[str, Any], confirmed: dict[str, Any] | None) -> Iterator[RenderableType]:
    from sensprobe.report.read import read_confirmation, read_search
    from sensprobe.report.terminal import (
        beside_table,
        chosen_table,
        confirmed_table,
        frontier_table,
    )
    from sensprobe.report.textplot import frontier_plot

    found = read_search(document)
    yield frontier_plot(found)
    yield frontier_table(found)
    if document["chosen"]:
        yield chosen_table(found)
    if confirmed is not None and confirmed["plans"]:
        yield confirmed_table(read_confirmation(confirmed))
    if document.get("also"):
        confirmed_too = confirmed if confirmed and confirmed.get("also") else None
        yield beside_table(read_confirmation(confirmed_too) if confirmed_too else found)


def run_tables(run: Run) -> Iterator[RenderableType]:
    """Every table a run's results give, in the order of the main job."""
    from sensprobe.report.agreement import agreement
    from sensprobe.report.benches import benches_of, latest
    from sensprobe.report.gather import PROFILES
    from sensprobe.report.read import read_sensitivity
    from sensprobe.report.terminal import agreement_line, bench_report

    found: dict[str, Any] = {}
    for name in (*PROFILES, "search", "confirmation"):
        with suppress(RunError):  # what is damaged is told as missing
            if isinstance(document := run.read_result(name), dict):
                found[name] = document
    for name in PROFILES:
        if name in found:
            yield sensitivity(found[name])
    if "sensitivity-measured" in found and "sensitivity-taylor" in found:
        pair = (read_sensitivity(found[f"sensitivity-{m}"]) for m in ("measured", "taylor"))
        yield agreement_line(agreement(*pair))
    if "search" in found:
        yield from search(found["search"], found.get("confirmation"))
    for bench_kept in latest(benches_of(run)):
        yield bench_report(bench_kept)


def exported(document: Mapping[str, Any]) -> RenderableType:
    return Text(
        f"{document['path']}\n"
        f"tensors {document['weight_bytes']:,} bytes, as the cost model said; header "
        f"{document['header_bytes']:,}, whole folder {document['folder_bytes']:,}\n"
        "reloaded: the same tensors and scales, to the bit\n" + stability(document["max_abs_A"])
    )


def report_files(files: Mapping[str, Any]) -> RenderableType:
    pictures = ", ".join(Path(path).name for path in files["images"])
    damaged = [why for why in files["missing"] if "cannot be read" in why]
    return Text("\n".join([f"report: {files['html']}", f"figures: {pictures}", *damaged]))


def trained(document: Mapping[str, Any]) -> RenderableType:
    unit = "epochs" if "epochs" in document else "steps"
    long = f"{document[unit]:,} {unit}"
    return Text(
        f"{document['weights']}\n{document['parameters']:,} parameters, {long}\n"
        f"{document['metric']}  {score(document, document['metric'])}   "
        f"(n = {document['n']:,}, {document['split']} split)"
    )


def doctor(found: Mapping[str, Any]) -> RenderableType:
    core = _table(("package", "left"), ("version", "left"))
    for package, version in found["core"].items():
        core.add_row(package, version or "MISSING: pip install -e .")
    fast = _table(("operation", "left"), ("device", "left"), ("runs as", "left"))
    for row in found["implementations"]:
        fast.add_row(row["operation"], row["device"], row["name"])
    extras = _table(("extra", "left"), ("version", "left"), ("adds", "left"), ("install", "left"))
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
    ships = f"models that ship: {', '.join(found['models']) or 'none'}"
    data = found["data_folder"] or "not set (folder with mnist/ for recipes and studies)"
    return Group(
        Text(head + "\n"),
        core,
        Text(""),
        fast,
        Text(""),
        extras,
        Text(f"\n{ships}\nSENSPROBE_DATA: {data}"),
    )


def next_after_profile(run: Path, document: Mapping[str, Any]) -> str:
    full = document["full_bytes"]
    quarter = f"{full / 4096:.3g}KiB" if full >= 4096 else str(full // 4)
    return f"next: sensprobe search --run {run} --budget {quarter}   (a quarter of {size(full)})"


def next_after_search(run: Path, document: Mapping[str, Any]) -> str:
    chosen = next((c for c in document["chosen"] if c["candidate"]), None)
    if chosen is None:
        return f"next: sensprobe report --run {run}"
    return (
        f"next: sensprobe export --run {run} --plan '{chosen['budget']}' --out exported, or "
        f"sensprobe report --run {run}"
    )


def next_after_export(document: Mapping[str, Any]) -> str:
    return f"next: sensprobe eval {document['path']} --data {document['data']}"


def generation(document: dict[str, Any]) -> str:
    """How fast text was written, and from what memory."""
    state = "packed" if document["packed"] else "in float32"
    return (
        f"{document['tokens']:,} tokens, {document['tokens_per_second']:,.0f} a second, after "
        f"{document['prompt_tokens']:,} read; weights {size(document['weight_bytes'])}, state "
        f"{size(document['state_bytes'])} {state}"
    )


def bench(document: dict[str, Any]) -> RenderableType:
    """Times, bandwidths and ratios of operations on packed memory."""
    from sensprobe.report.benches import read_bench
    from sensprobe.report.terminal import bench_report

    return bench_report(read_bench(document))


def next_after_bench(run: Path) -> str:
    return f"kept in {run}: sensprobe report --run {run}, or sensprobe dashboard {run}"
