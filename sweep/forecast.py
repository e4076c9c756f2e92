"""What a study will take, by what a preflight has measured: hours, dollars, and the table that --preflight prints."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from sn7.measure import BatchCost
from sn7.tiles import training_tiles, validation_tiles
from sweep.board import duration
from sweep.budget import price
from sweep.cluster import per_gpu
from sweep.plan import Plan
from sweep.preflight import Preflight, gpu_share

__all__ = ["Prediction", "describe_preflight", "predict_cost"]


@dataclass(frozen=True)
class Prediction:
    """What all trainings of a study take if none is pruned.

    Pairs are (least, most): trainings that share a GPU slow each other down, by nothing at least, and at most as if
    they took turns. Where none share, both are the same.
    """

    epochs: int
    seconds_per_case: tuple[float | None, ...]
    """Of an epoch of each case, training alone; None where not one tile fits."""
    seconds_per_epoch: float
    """Their mean."""
    price_per_hour: float | None
    """Dollars an hour of one trial's share of its node; None where the study has no prices."""
    hours: tuple[float, float]
    dollars: tuple[float, float] | None


def predict_cost(
    plan: Plan,
    measured: Preflight,
    share: float,
    at_once: int,
    node_share: float = 1.0,
    node_type: str = "default",
) -> Prediction:
    """Return what all trials, repeats and folds take at most, from the mean over the cases of an epoch's seconds.

    A trial has `share` of a GPU (0: none), and `node_share`, in (0, 1], of a node of `node_type`, the key of
    [prices]; `at_once` run side by side. Of an epoch, the tiles of the first validation split are counted.
    """
    seconds = _seconds_per_case(plan, measured)
    known = [value for value in seconds if value is not None]
    if not known:
        gpu_share(measured.costs)  # raises, naming the cases
    epochs, mean = plan.trial_epochs + plan.repeat_epochs + plan.fold_epochs, fmean(known)
    alone, turns = epochs * mean / 3600, per_gpu(share)
    prices = plan.study.prices
    hourly = price(prices, node_type) * node_share if prices else None
    return Prediction(
        epochs=epochs,
        seconds_per_case=seconds,
        seconds_per_epoch=mean,
        price_per_hour=hourly,
        hours=(alone / at_once, alone * turns / at_once),
        dollars=None if hourly is None else (alone * hourly, alone * turns * hourly),
    )


def _seconds_per_case(plan: Plan, measured: Preflight) -> tuple[float | None, ...]:
    split, prepared = plan.validation[0], plan.prepared
    tiles: dict[int, tuple[int, int]] = {}  # by tile size: the cases of one have the same tiles, and counting reads
    seconds: list[float | None] = []
    for case, cost in zip(measured.cases, measured.costs, strict=True):
        if case.tile_size not in tiles:
            training = training_tiles(prepared, split.training, case)
            tiles[case.tile_size] = len(training), len(validation_tiles(prepared, split.validation, case))
        counts, rates = tiles[case.tile_size], (cost.tiles_per_s, cost.validation_tiles_per_s)
        seconds.append(sum(n / rate for n, rate in zip(counts, rates, strict=True)) if cost.largest_batch else None)
    return tuple(seconds)


def describe_preflight(measured: Preflight, prediction: Prediction, share: float, at_once: int) -> str:
    """Return the table of what was measured, the share of a GPU, and the predicted hours and cost, for people."""
    total = max(cost.total_mib for cost in measured.costs)
    lines = [
        f"preflight on {measured.device} ({_gib(total)}), torch {measured.torch}",
        _row("encoder", "tile", "batch", "peak memory", "tiles/s", "s/epoch", ""),
        *(
            _row(
                cost.encoder,
                str(cost.tile_size),
                str(cost.batch_size),
                _gib(cost.peak_mib) if cost.largest_batch else "–",
                f"{cost.tiles_per_s:.1f}" if cost.largest_batch else "–",
                "–" if seconds is None else f"{seconds:.1f}",
                _verdict(cost, share),
            )
            for cost, seconds in zip(measured.costs, prediction.seconds_per_case, strict=True)
        ),
        f"gpu = {share:g}: {per_gpu(share)} at once on a GPU, {at_once} on the cluster{_other_share(measured, share)}"
        if share
        else f"gpu = 0: {at_once} at once on the cluster",
        f"predicted, if nothing is pruned: {prediction.epochs} epochs, {_range(prediction.hours, _hours)}, "
        + (_range(prediction.dollars, _dollars) if prediction.dollars else "no price given"),
    ]
    if prediction.hours[0] != prediction.hours[1]:
        lines.append("  (from trainings that share a GPU without loss of speed, to such as take turns)")
    return "\n".join(lines)


def _row(*texts: str) -> str:
    encoder, tile, batch, peak, rate, seconds, verdict = texts
    return f"  {encoder:<20} {tile:>5} {batch:>6} {peak:>12} {rate:>8} {seconds:>8}  {verdict}".rstrip()


def _other_share(measured: Preflight, share: float) -> str:
    """Return what "auto" would make of `share`, where that is another one."""
    auto = gpu_share(measured.costs) if any(cost.fits for cost in measured.costs) else share
    return f' ("auto" would be {auto:g})' if auto != share else ""


def _verdict(cost: BatchCost, share: float) -> str:
    if cost.fits and share and cost.peak_mib > share * cost.total_mib:
        return f"does not fit into {share:g} of the GPU; trains with fewer tiles at a time"
    if cost.fits:
        return "fits"
    smaller = f"; measured with {cost.largest_batch} tiles, which do" if cost.largest_batch else ""
    return f"does not fit: {cost.reason}{smaller}"


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB"


def _hours(hours: float) -> str:
    return duration(hours * 3600)


def _dollars(dollars: float) -> str:
    return f"${dollars:.2f}" if dollars < 10 else f"${dollars:,.0f}"


def _range(ends: tuple[float, float], text: Callable[[float], str]) -> str:
    low, high = map(text, ends)
    return low if low == high else f"{low} to {high}"
