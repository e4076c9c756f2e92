"""SCOT beside a straightforward implementation, and how its time grows with the months.

    .venv/bin/python benchmarks/scot.py [--json]          about a minute

The scene is generated: buildings on lots of 19 px, of SpaceNet 7's sizes, a third of them built within the months;
predictions are moved, ragged, missed, or of nothing, under ids that now and then change. In CPU time, the lowest of the
rounds: other work on the machine only ever adds.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np
import shapely
from plainscot import plain_score

from sn7.challenge import Tracks
from sn7.score.scot import SceneScore, score_scene

__all__ = ["measure", "scene"]

BUILDINGS, MONTHS, FEW = 2775, 25, 5
LOT = 19.0
"""px between the middles of two lots: 2,775 fill 1,024 × 1,024 px."""


def main() -> None:
    """Print the table, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of ours, two of the other (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    options = parser.parse_args()
    ratios = measure(options.rounds)
    if options.json:
        print(json.dumps(ratios))


def measure(rounds: int = 5) -> dict[str, float]:
    """Print the table; return scot_vs_straightforward, scot_growth and scot_s, the seconds of 25 months."""
    (truth, found), (few_truth, few_found) = scene(MONTHS), scene(FEW)
    plain_s, plain = fastest(lambda: plain_score(truth, found), 1)
    ours_s, ours = fastest(lambda: score_scene(truth, found), rounds)
    few_s, _ = fastest(lambda: score_scene(few_truth, few_found), rounds)
    if ours != plain:
        raise AssertionError(f"two implementations, two scores: {ours} and {plain}")
    print(
        f"SCOT {ours.scot:.3f} of {len(truth):,} true and {len(found):,} predicted footprints, {BUILDINGS:,} buildings,"
    )
    print(f"CPU seconds, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'straightforward, ' + str(MONTHS) + ' months':32}{plain_s:>8.2f}")
    print(f"{'ours, ' + str(MONTHS) + ' months':32}{ours_s:>8.2f}{len(truth) / ours_s:>12,.0f} true footprints/s")
    print(f"{'ours, ' + str(FEW) + ' months':32}{few_s:>8.2f}{len(few_truth) / few_s:>12,.0f}")
    return {
        "scot_vs_straightforward": round(plain_s / ours_s, 2),
        "scot_growth": round(ours_s / few_s / (MONTHS / FEW), 3),
        "scot_s": round(ours_s, 2),
    }


def fastest(work: Callable[[], SceneScore], rounds: int) -> tuple[float, SceneScore]:
    """Return the lowest CPU seconds of the rounds, and the score."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        score = work()
        seconds.append(time.process_time() - start)
    return min(seconds), score


def scene(months: int) -> tuple[Tracks, Tracks]:
    """Return truth and predictions of the first months of a scene; every month has all its buildings."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(BUILDINGS)))
    middles = LOT * (0.5 + np.stack(np.divmod(np.arange(BUILDINGS), side), axis=1)) + rng.uniform(-3, 3, (BUILDINGS, 2))
    sizes = np.clip(4.2 * np.exp(0.35 * rng.standard_normal((BUILDINGS, 2))), 2.5, 14)
    turns = rng.uniform(0, np.pi, BUILDINGS)
    true = outlines(middles, sizes, turns, 4)
    truth, found = {}, {}
    ids = np.arange(BUILDINGS)
    for month in range(months):
        date = f"{2018 + month // 12}-{month % 12 + 1:02}"
        born = ids[(ids % months <= month) | (ids % 3 > 0)]
        truth[date] = born.tolist(), true[born]
        moved = middles + rng.normal(0, 0.8, middles.shape)
        ragged = outlines(moved, sizes * rng.uniform(0.7, 1.3, sizes.shape), turns + rng.normal(0, 0.2, BUILDINGS), 16)
        seen = born[rng.random(len(born)) < 0.85]
        names = np.where(rng.random(len(seen)) < 0.1, seen + BUILDINGS * (month + 1), seen)
        ghosts = outlines(rng.uniform(0, side * LOT, (200, 2)), sizes[:200], turns[:200], 16)
        ghost_names = 10**6 + 1000 * month + np.arange(200)
        found[date] = [*names.tolist(), *ghost_names.tolist()], np.concatenate([ragged[seen], ghosts])
    name = "L15-0001E-0001N_4_8188_13"
    return Tracks.of(name, truth), Tracks.of(name, found)


def outlines(middles: np.ndarray, sizes: np.ndarray, turns: np.ndarray, corners: int) -> np.ndarray:
    """Return rounded rectangles with so many corners, turned."""
    angle = (np.arange(corners) + 0.5) * 2 * np.pi / corners
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    unit /= np.abs(unit).max(axis=1, keepdims=True) ** 0.8
    points = unit * sizes[:, None] / 2
    cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
    turned = np.stack(
        [points[..., 0] * cos - points[..., 1] * sin, points[..., 0] * sin + points[..., 1] * cos], axis=-1
    )
    return shapely.polygons(turned + middles[:, None])


if __name__ == "__main__":
    main()
