"""A folder for a crossbar: cells that give the plan's codes back, and a mapping that fits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import applier, inputs, tiny

from sensprobe.documents import schema_of
from sensprobe.errors import RunError, UsageError
from sensprobe.export import crossbar as module
from sensprobe.export.crossbar import FILES, MAPPING, write_crossbar
from sensprobe.models.apply import Applier
from sensprobe.models.crossbar import find_ranges, placement_of
from sensprobe.plans.crossbar import parse
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.scheme import parse as scheme_of

PLANS = {
    "one layer": {"encoder": "int4", "layers.0.out_proj": "int8/group2", "head": "int5/channel"},
    "mamba": {"layers.0.in_proj.x": "int6/channel", "layers.0.x_proj.B": "int3/group4"},
    "mamba2, tokens": {"layers.1.out_proj": "int8/channel/s32", "head": "int7/group2/pow2"},
}
SIZES = "rows=3,columns=21,cell_bits=3"


def write(name: str, out: Path, **options: bool) -> tuple[Applier, dict[str, Scheme]]:
    """Write a plan of a tiny model, and return what it was written from."""
    plan = {site: scheme_of(scheme) for site, scheme in PLANS[name].items()}
    made = Applier(tiny(name), applier(name).statistics)
    made.lay_on(parse(SIZES))
    find_ranges(made, plan, inputs(tiny(name)))
    write_crossbar(
        placement_of(made, plan),
        Plan(tuple(plan.items()), "tiny"),
        made.arrays[fingerprint(plan)],
        made,
        out,
        counts={},
        fingerprints={"model": "m", "plan": "p"},
        **options,
    )
    return made, plan


@pytest.mark.parametrize("name", PLANS)
def test_a_reader_rebuilds_the_codes_from_the_mapping_alone(name: str, tmp_path: Path) -> None:
    made, plan = write(name, tmp_path / "out")
    mapping = json.loads((tmp_path / "out" / MAPPING).read_text())
    schema_of("sensprobe.export", "crossbar").require(mapping)
    tensors = load_file(tmp_path / "out" / mapping["conductances"]["file"])
    cell_bits = mapping["crossbar"]["cell_bits"]
    assert mapping["matrices"].keys() == plan.keys()
    for site, told in mapping["matrices"].items():
        field = made.encoded(made.model.sites[site], plan[site])[""]
        levels, starts = tensors[f"{site}.levels"], [*told["starts"], told["shape"][1]]
        assert list(levels.shape) == [*told["tiles"], 3, 21]
        for o in range(told["shape"][0]):
            across, place = divmod(o, told["outputs"])
            for k, (first, end) in enumerate(pairwise(starts)):
                for i in range(first, end):
                    row, code = levels[k, across, i - first], 0
                    for s in range(told["slices"]):
                        column = (place * told["slices"] + s) * 2
                        pair = int(row[column]) - int(row[column + 1])
                        code += pair * 2 ** (s * cell_bits)
                    assert code == field.codes[o, i]
        w = made.tap(plan).weights[site]
        codes = field.codes.float().split([b - a for a, b in pairwise(starts)], 1)
        scales = tensors[f"{site}.scales"]
        values = torch.cat([c * s[:, None] for c, s in zip(codes, scales, strict=True)], 1)
        assert torch.equal(values, w)


def test_what_is_not_on_it_is_named(tmp_path: Path) -> None:
    made, plan = write("one layer", tmp_path / "out")
    digital = json.loads((tmp_path / "out" / MAPPING).read_text())["digital"]
    weights = {n for n, site in made.model.sites.items() if site.kind == "weight"}
    assert digital.keys() == weights - plan.keys()
    assert digital["layers.0.A"]["values"] == made.model.sites["layers.0.A"].reals


def test_a_folder_is_whole_or_untouched(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    write("one layer", out)
    with pytest.raises(UsageError, match="already"):
        write("one layer", out)
    write("one layer", out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES
    before = (out / MAPPING).read_bytes()
    read = module.off_tiles
    monkeypatch.setattr(module, "off_tiles", lambda tiles, placed: read(tiles, placed) * 0)
    with pytest.raises(RunError, match="does not hold the plan's codes of encoder"):
        write("one layer", out, overwrite=True)
    assert (out / MAPPING).read_bytes() == before
