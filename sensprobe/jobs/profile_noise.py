"""The part of a profile that puts noise on one group at a time, in place of a scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sensprobe.errors import UsageError
from sensprobe.jobs.noisy import DRAWS, check_draws, drawn
from sensprobe.models.noisy import noisy_radius
from sensprobe.plans.noise import Draw, Noise, why_not
from sensprobe.scores.draws import averaged, over_draws
from sensprobe.scores.score import Score
from sensprobe.sensitivity import Group, differences
from sensprobe.session.executor import Piece
from sensprobe.session.session import Session


@dataclass(frozen=True, slots=True)
class NoiseLevels:
    """The noises to put on each group, on how many devices, and the seed that they are drawn
    from."""

    levels: Sequence[Noise]
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        check_draws(self.draws, self.seed)
        if nothing := [level for level in self.levels if level.nothing]:
            raise UsageError(f"noise of {nothing[0]} changes nothing: give an amount above 0.")


class UnderNoise(NamedTuple):
    """What a group loses under a noise: paired differences by array, with the error of samples and
    devices, and the largest spectral radius of the devices."""

    group: Group
    level: Noise
    scores: Mapping[str, Score]
    radius: float


def under_noise(
    session: Session, groups: Sequence[Group], noise: NoiseLevels, stop: int
) -> Iterator[UnderNoise]:
    """The losses of every group under every noise that fits all its sites, on the first `stop`
    samples of the search split. Devices are the same for all groups."""
    pairs = [
        (group, level)
        for group in groups
        for level in noise.levels
        if not any(why_not(level, site) for site in group.sites)
    ]
    piece, runs = Piece("search", 0, stop), len(pairs) * noise.draws
    seconds = session.seconds_a_sample("search", stop) * stop * runs
    title = f"profiling {len(pairs)} target-noise pairs on {noise.draws} devices, {stop:,} samples"
    session.progress.begin(title, (runs + 1) * stop, seconds)
    baseline = session.measure({}, "search", 0, stop, "baseline")
    clusters, robust = session.samples.groups("search", stop), session.headline.robust
    for group, level in pairs:
        noises = {site.name: level for site in group.sites}
        draws = [Draw(noises, noise.seed, k) for k in range(noise.draws)]
        found = drawn(session, {}, draws, piece, f"{group.name}={level}")
        scores = differences(averaged(found), baseline, clusters, robust=robust)
        yield UnderNoise(
            group,
            level,
            {name: over_draws(s, [one[name] for one in found]) for name, s in scores.items()},
            max(noisy_radius(session.applier, {}, draw) for draw in draws),
        )
