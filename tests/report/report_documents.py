"""Result documents as a run of a 4-layer S4D on 400 samples would write them, by formula."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from random import Random
from typing import Any

from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan, adapted, fingerprint, uniform
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site
from sensprobe.runs import open_run

LAYERS, H, PAIRS, N = 4, 16, 32, 400
SCHEMES = ["fp16", "int8/head/asym/dynamic", "int6/head/asym/dynamic", "int4/head/asym/dynamic"]
BASE = 0.982
HURT = {
    "A": 5.0,
    "state": 4.0,
    "y": 1.2,
    "x": 0.8,
    "C": 0.5,
    "out_proj": 0.7,
    "head": 0.4,
    "B": 0.3,
}


def _layer(at: str) -> list[Site]:
    W, act, ssm = Kind.WEIGHT, Kind.ACTIVATION, ((H, PAIRS), (Axis.HEAD, Axis.N), True)
    return [
        Site(at + "x", Part.X, act, (H,), (Axis.HEAD,)),
        Site(at + "A", Part.A, W, *ssm),
        Site(at + "B", Part.B, W, *ssm),
        Site(at + "state", Part.STATE, Kind.STATE, *ssm),
        Site(at + "C", Part.C, W, *ssm),
        Site(at + "D", Part.D, W, (H,), (Axis.HEAD,)),
        Site(at + "y", Part.Y, act, (H,), (Axis.HEAD,)),
        Site(at + "out_proj", Part.OUT_PROJ, W, (2 * H, H), (Axis.OUT, Axis.IN)),
        Site(at + "out_proj.bias", Part.BIAS, W, (2 * H,), (Axis.CHANNEL,)),
        Site(at + "norm", Part.NORM, W, (H,), (Axis.CHANNEL,)),
    ]


def sites() -> list[Site]:
    inner = [site for i in range(LAYERS) for site in _layer(f"layers.{i}.")]
    return [
        Site("encoder", Part.ENCODER, Kind.WEIGHT, (H, 1), (Axis.OUT, Axis.IN)),
        Site("encoder.bias", Part.BIAS, Kind.WEIGHT, (H,), (Axis.CHANNEL,)),
        *inner,
        Site("head", Part.HEAD, Kind.WEIGHT, (10, H), (Axis.OUT, Axis.IN)),
        Site("head.bias", Part.BIAS, Kind.WEIGHT, (10,), (Axis.CHANNEL,)),
    ]


def site_rows() -> list[dict[str, Any]]:
    return [
        {
            "site": s.name,
            "part": s.part.value,
            "kind": s.kind.value,
            "shape": list(s.shape),
            "axes": [a.value for a in s.axes],
            "complex": s.is_complex,
        }
        for s in sites()
    ]


def _pull(part: str, bits: float) -> float:
    """Nats a part costs at some bits: exponential in the bits missing, and then some."""
    return HURT.get(part, 0.004) * 4.0 ** (5.2 - bits) * (0.1 if bits > 12 else 1.0)


def _kept(kl: float) -> float:
    """Accuracy left after a divergence."""
    return 0.1 + (BASE - 0.1) * 2 ** (-min(kl, 40.0) / 0.7)


def _paired(change: float) -> dict[str, float]:
    """A paired difference of right-or-wrong scores: whole flips of N samples."""
    flips = round(change * N)
    return {"value": flips / N, "stderr": sqrt(max(abs(flips), 0) / N * (1 - abs(flips) / N) / N)}


def _score(value: float) -> dict[str, Any]:
    flat = round(value * N) / N
    return {"value": flat, "stderr": sqrt(flat * (1 - flat) / N), "n": N}


def _row(
    target: str, members: list[Site], text: str, noise: Random, share: float
) -> dict[str, Any]:
    part, kind = members[0].part.value, members[0].kind.value
    applied = adapted([(s.name, parse(text)) for s in members], members)
    price = cost(members, applied.resolve(members)) if kind != "activation" else None
    kl = share * _pull(part, parse(text).bits_per_real) * noise.uniform(0.8, 1.25)
    change = _kept(kl) - BASE + noise.choice([0, 0, 1, -1, 1]) / N
    return {
        "target": target,
        "part": part,
        "kind": kind,
        "layer": members[0].layer if len(members) == 1 else None,
        "scheme": text,
        "applied": list(dict.fromkeys(str(s) for _, s in applied.entries)),
        "weight_bytes": price.weight_bytes if price else 0,
        "state_bytes": price.state_bytes if price else 0,
        "kl": {"value": kl, "stderr": kl * 0.08},
        "cross_entropy": {"value": kl * 0.9, "stderr": kl * 0.1},
        "metric": _paired(change),
        "radius": 1.0039 if (part, text[:4]) in {("A", "int6"), ("A", "int4")} else 0.99962,
        "n": N,
        "clusters": N,
    }


def sensitivity(by: str = "part", method: str = "measured") -> dict[str, Any]:
    noise = Random(f"{by}{method}")
    groups: dict[str, list[Site]] = {}
    for site in sites():
        group = f"layers.*.{site.name.split('.', 2)[2]}" if site.layer is not None else site.name
        name = site.name if by == "site" else "*.bias" if site.part is Part.BIAS else group
        groups.setdefault(name, []).append(site)
    rows = [
        _row(
            name,
            members,
            text,
            noise,
            1.0 if by == "part" else 1 / LAYERS * (1 + (members[0].layer or 0) / 3),
        )
        for name, members in groups.items()
        for text in SCHEMES
    ]
    document = {
        "method": method,
        "by": by,
        "split": "search",
        "n": N,
        "clusters": N,
        "task": "classification",
        "metric": "accuracy",
        "sign": 1,
        "additive": "kl",
        "baseline": {"metric": _score(BASE), "cross_entropy": {"value": 0.0631, "stderr": 0.009}},
        "schemes": list(SCHEMES),
        "rows": rows,
    }
    if method == "taylor":
        for row in rows:
            row["kl"] = {k: v * noise.uniform(0.4, 1.1) for k, v in row["kl"].items()}
            del row["metric"], row["cross_entropy"]
    return document


def regression() -> dict[str, Any]:
    document = sensitivity() | {
        "task": "regression",
        "metric": "mse",
        "sign": -1,
        "additive": "distance",
    }
    document["baseline"] = {"metric": {"value": 0.0312, "stderr": 0.0014, "n": N}}
    for row in document["rows"]:
        row["distance"] = row.pop("kl")
        row["metric"] = {"value": row["distance"]["value"] * 0.2, "stderr": 0.0007}
        del row["cross_entropy"]
    return document


def _candidate(
    name: str, plan: Plan, source: str, noise: Random, text: str | None
) -> dict[str, Any]:
    resolved = plan.resolve(sites())
    price = cost(sites(), resolved)
    parts = {s.name: s.part.value for s in sites()}
    kl = sum(_pull(parts[n], s.bits_per_real) for n, s in resolved.items()) / LAYERS
    metric = _score(_kept(kl * noise.uniform(0.8, 1.3)))
    full = round(BASE * N) / N
    gone = full - metric["value"]
    return {
        "name": name,
        "label": name,
        "source": source,
        "uniform": text,
        "plan": plan.to_json(),
        "plan_fingerprint": fingerprint(resolved),
        **{
            k: price.to_json()[k]
            for k in ("weight_bytes", "state_bytes", "total_bytes", "effective_bits")
        },
        "metric": {k: metric[k] for k in ("value", "stderr")},
        "loss": {"value": -gone, "stderr": _paired(gone)["stderr"]},
        "extra_nats": kl,
        "predicted": kl * 0.8,
        "n": N,
        "stopped_early": False,
        "radius": 0.9996 if kl < 3 else 1.0039,
        "on_front": False,
    }


def _mixed(noise: Random) -> Plan:
    """A random plan that spends more on what hurts more."""
    level = noise.choice([4, 5, 6, 7, 8])
    entries = []
    for site in sites():
        if site.kind is not Kind.ACTIVATION:
            bits = (
                level + (2 if HURT.get(site.part.value, 0) > 3 else 0) + noise.choice([-1, 0, 0, 1])
            )
            entries.append((site.name, parse(f"int{min(max(bits, 2), 16)}/head/asym/dynamic")))
    return adapted(entries, sites())


def search(count: int = 60) -> dict[str, Any]:
    noise = Random(count)
    found = [
        _candidate(f"u-{text}", uniform(parse(text), sites()), "uniform", noise, text)
        for text in [*SCHEMES, "int5/head/asym/dynamic"]
    ]
    found += [_candidate(f"p{k}", _mixed(noise), "gains", noise, None) for k in range(count)]
    for k, candidate in enumerate(found[5:]):
        if k % 9 == 8:
            candidate |= {"stopped_early": True, "n": 100, "loss": {"value": -0.11, "stderr": 0.03}}
    best = -1.0
    for c in sorted(found, key=lambda c: (c["total_bytes"], -c["metric"]["value"])):
        if c["metric"]["value"] > best and not c["stopped_early"]:
            best, c["on_front"] = c["metric"]["value"], True
    full = cost(sites(), {})
    budgets = {"20KiB": 20480, "24KiB": 24576, "32KiB": 32768}
    return {
        "method": "gains",
        "batch": 1,
        "metric": "accuracy",
        "sign": 1,
        "seed": 0,
        "split": "search",
        "n": N,
        "evaluations": 100,
        "spent": 87.5,
        "full": {
            "weight_bytes": full.weight_bytes,
            "state_bytes": full.state_bytes,
            "total_bytes": full.total_bytes,
            "metric": _score(BASE),
        },
        "chance": 0.1,
        "smallest_bytes": min(c["total_bytes"] for c in found),
        "budgets": [
            {"label": k, "total": v, "weight": None, "state": None, "max_loss": None}
            for k, v in budgets.items()
        ],
        "candidates": found,
        "chosen": [_choice(label, limit, found) for label, limit in budgets.items()],
    }


def _choice(label: str, limit: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    fits = [c for c in found if c["total_bytes"] <= limit and not c["stopped_early"]]
    plain = [c for c in fits if c["uniform"]]

    def best(among: list[dict[str, Any]]) -> str | None:
        top = max(among, key=lambda c: (c["metric"]["value"], -c["extra_nats"]), default=None)
        return top["name"] if top else None

    return {"budget": label, "candidate": best(fits), "uniform": best(plain)}


def confirmation(found: dict[str, Any] | None = None) -> dict[str, Any]:
    found = found or search()
    by_name = {c["name"]: c for c in found["candidates"]}
    baseline = _score(0.978)
    plans = []
    for choice in found["chosen"]:
        c, u = by_name.get(choice["candidate"]), by_name.get(choice["uniform"])
        if c is None:
            continue
        metric = _score(c["metric"]["value"] - 0.008)
        gone = baseline["value"] - metric["value"]
        against = None
        if u is not None:
            rival = _score(u["metric"]["value"] - 0.01)
            gain = metric["value"] - rival["value"]
            against = {
                "uniform": u["uniform"],
                "total_bytes": u["total_bytes"],
                "metric": rival,
                "difference": {"value": gain, "stderr": _paired(gain)["stderr"]},
            }
        plans.append(
            {
                "budget": choice["budget"],
                "candidate": c["name"],
                "name": f"plan for {choice['budget']}",
                **{k: c[k] for k in ("total_bytes", "weight_bytes", "state_bytes", "radius")},
                "metric": metric,
                "loss": {"value": -gone, "stderr": max(_paired(gone)["stderr"], 0.0035)},
                "against_uniform": against,
            }
        )
    return {
        "split": "confirmation",
        "n": N,
        "metric": "accuracy",
        "baseline": baseline,
        "plans": plans,
    }


def tuned(search: dict[str, Any]) -> dict[str, Any]:
    """Two tuned plans of a search, of which the larger one gained nothing that its error allows to
    say."""
    stable = [c for c in search["candidates"] if c["radius"] < 1]
    first, second = sorted(stable, key=lambda c: c["total_bytes"])[:2]
    return {
        "metric": "accuracy",
        "plans": [
            _tuned_row(second, (0.8, 0.81), (0.8, 0.805)),
            _tuned_row(first, (0.6, 0.95), (0.61, 0.94)),
        ],
    }


def _tuned_score(value: float, stderr: float = 0.01) -> dict[str, Any]:
    return {"value": value, "stderr": stderr, "n": 400, "clusters": 400}


def _tuned_scores(before: float, after: float) -> dict[str, Any]:
    changes = {"gained": _tuned_score(after - before), "left": _tuned_score(after - 0.982)}
    return {
        "n": 400,
        "full": _tuned_score(0.982),
        "before": _tuned_score(before),
        "after": _tuned_score(after),
        **changes,
    }


def _tuned_row(
    candidate: dict[str, Any], search: tuple[float, float], unseen: tuple[float, float]
) -> Any:
    sizes = ("plan", "plan_fingerprint", "weight_bytes", "state_bytes", "total_bytes")
    return {key: candidate[key] for key in sizes} | {
        "name": candidate["name"], "candidate": candidate["name"], "batch": 1,
        "asked_fingerprint": candidate["plan_fingerprint"],
        "weights_fingerprint": "w", "folder": f"tuned/{candidate['name']}", "radius": 0.99,
        "epochs": 3, "steps": 90, "seconds": 75.0, "warnings": [],
        "splits": {"search": _tuned_scores(*search), "confirmation": _tuned_scores(*unseen)},
    }  # fmt: skip


HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "$\\frac{1}{0$ and $",
    "[red]markup[/red] {{plotly}} %{x}",
    "=HYPERLINK(1)",
    "\U0001f4a3\n\x07 漢字",
    "layers.*." + "very_long_name." * 30,
)
"""Names that a model from a stranger may have."""


def hostile(document: dict[str, Any]) -> dict[str, Any]:
    """The document with hostile names and with numbers that are missing or not finite."""
    odd = [None, float("nan"), float("inf"), -float("inf")]
    for k, row in enumerate(document.get("rows", [])):
        row["target"] = HOSTILE[k % len(HOSTILE)]
        row["scheme"] = document["schemes"][k // len(HOSTILE) % len(document["schemes"])]
        if k % 3 == 0 and "metric" in row:
            row["metric"] = {"value": odd[k % 4], "stderr": odd[(k + 1) % 4]}
        if k % 5 == 0:
            row["kl"] = None if k % 2 else {"value": odd[k % 4], "stderr": None}
        row["radius"] = odd[k % 4]
    for k, c in enumerate(document.get("candidates", [])):
        c["uniform"] = HOSTILE[k % len(HOSTILE)] if c["uniform"] else None
        if k % 7 == 6:
            c |= {"metric": {"value": odd[k % 4], "stderr": None}, "loss": None, "radius": None}
    return document


def search_of(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """The fake search with other candidates, none chosen."""
    return search() | {"candidates": candidates, "chosen": [], "budgets": []}


def bench(
    seconds: float = 1e-4, shapes: tuple[str, ...] = ("130m", "370m"), batch: int = 1
) -> dict[str, Any]:
    """What `sensprobe bench` returns: every case takes `seconds`, twice that at the second shape,
    moves a megabyte, and is twice as fast as PyTorch; copying reaches 20 GB/s."""
    rows = []
    for k, shape in enumerate(shapes):
        for operation, scheme in BENCHED:
            time = seconds * (k + 1)
            rows.append(
                {
                    "operation": operation, "model": shape, "size": "3072×768", "scheme": scheme,
                    "seconds": time, "quartiles": [0.9 * time, 1.1 * time], "bytes": 10**6,
                    "bytes_per_second": 1e6 / time, "of_copy": 1e6 / time / 2e10,
                    "reference_seconds": 2 * time, "reference_quartiles": [1.9 * time, 2.2 * time],
                    "reference_threads": 1, "ratio": 2.0,
                }
            )  # fmt: skip
    return {
        "created": "2026-03-01T12:30:45.000000+00:00", "machine": "EPYC, 2 CPUs, Linux", "cpus": 2,
        "device": "cpu", "device_name": "EPYC", "load": 0.1,
        "versions": {"sensprobe": "0.1.0", "torch": "2.9.0"}, "threads": 1, "reference_threads": 2,
        "shapes": list(shapes), "batch": batch, "copy_bytes_per_second": 2e10, "rows": rows,
    }  # fmt: skip


BENCHED = (("linear", "int8/channel"), ("linear", "int4/group32"), ("state, Mamba", "fp32"))


def keep_bench(run: Path, document: dict[str, Any]) -> Path:
    """Puts a bench into a run as the command does; its file."""
    with open_run(run).benching({k: v for k, v in document.items() if k != "rows"}) as keep:
        for row in document["rows"]:
            keep(row)
    return max((run / "benches").iterdir())


def in_bits_per_byte(folder: Path) -> None:
    """Makes the search of a run on accuracy one on a metric of which less is better."""
    run = open_run(folder)
    info = {"name": "bits per byte", "unit": "", "change_unit": "bits", "scale": 1.0}
    metric = {"metric": "bits_per_byte", "sign": -1}
    metric["metric_info"] = info | {"higher_is_better": False}

    def turned(row: dict[str, Any]) -> dict[str, Any]:
        told = {"metric": row["metric"] | {"value": 2 - row["metric"]["value"]}}
        lost = row.get("loss")
        return row | told | ({"loss": lost | {"value": -lost["value"]}} if lost else {})

    search, confirmed = run.read_result("search"), run.read_result("confirmation")
    rows = [turned(row) for row in search["candidates"]]
    changed = {"full": turned(search["full"]), "candidates": rows, "chance": None}
    run.write_result("search", search | metric | changed)
    baseline = turned({"metric": confirmed["baseline"]})["metric"]
    plans = [turned(row) | {"against_uniform": None} for row in confirmed["plans"]]
    run.write_result("confirmation", confirmed | metric | {"baseline": baseline, "plans": plans})
