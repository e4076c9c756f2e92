import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from sn7.config import TrainConfig
from sn7.errors import ResultsConflict, StudyInvalid
from sn7.folds import Split
from sn7.measure import BatchCost
from sn7.prepared import Prepared
from sweep import preflight as module
from sweep.cluster import start_ray, stop_ray
from sweep.forecast import describe_preflight, predict_cost
from sweep.growth import NODE_TYPE
from sweep.packing import measured_cost, preflight_text
from sweep.plan import Plan
from sweep.preflight import (
    Preflight,
    cases,
    gpu_share,
    load_preflight,
    preflight,
    run_preflight,
    save_preflight,
)
from sweep.study import Resources, Study
from sweep.studyfile import load_study

GIB = 1024.0
FITS = BatchCost("xresnet34", 255, 12, "L4", True, 5.1 * GIB, 24 * GIB, 4.0, 8.0, True, "", 12)
TOO_LARGE = BatchCost("resnet50d", 255, 12, "L4", True, 20 * GIB, 24 * GIB, 2.0, 4.0, False, "out of memory", 6)
KILLED = BatchCost("regnety_320", 255, 12, "", False, 0, 0, 0, 0, False, "the process was killed", 0)


def _study(write_study: Callable[..., Path], search: str = "", train: str = "") -> Study:
    path = write_study()
    text = path.read_text().replace("[search]\n", f"{train}\n[search]\n{search}\n")
    path.write_text(text)
    return load_study(path)


@pytest.fixture
def plan(write_study: Callable[..., Path], make_prepared: Callable[..., Prepared]) -> Plan:
    """Return a plan of 4 trials of 2 epochs and 2 folds; of 4 training tiles an image."""
    folds = (Split("fold0", ("scene0", "scene1"), ("scene2",)), Split("fold1", ("scene2",), ("scene0", "scene1")))
    return Plan(_study(write_study), make_prepared(scenes=3), folds[:1], folds)


def _measured(plan: Plan, *costs: BatchCost) -> Preflight:
    return Preflight("L4", "2.11.0", tuple(cases(plan.study)), costs)


def test_a_case_for_each_encoder_and_tile_size_at_its_most(write_study: Callable[..., Path]) -> None:
    """The largest batch, most images and every tile; ends of a range of tile sizes, with an overlap that they take."""
    path = write_study({'encoder = "xresnet18"\n': "", "tile_size = 32\n": "", "batch_size = 4\n": ""})
    path.write_text(
        path.read_text()
        + 'encoder = { choice = ["xresnet34", "resnet34d"] }\n'
        + "tile_size = { int = [64, 256] }\n"
        + "tile_overlap = { choice = [0, 48] }\n"
        + "batch_size = { choice = [12, 4] }\n"
        + "images_per_scene = { int = [1, 5] }\n"
        + "undersample = { choice = [true, false] }\n"
        + "upscale = { choice = [1, 3] }\n"
        + "self_attention = { choice = [false, true] }\n"
        + 'image_selection = { choice = ["first", "all"] }\n'
        + 'precision = { choice = ["auto", "fp32"] }\n'
        + "ema_decay = { uniform = [0.0, 0.99] }\n"
        + "separation_weight = { choice = [0.0, 0.5] }\n"
    )
    found = cases(load_study(path))
    assert [(case.encoder, case.tile_size, case.tile_overlap) for case in found] == [
        ("xresnet34", 64, 32),
        ("xresnet34", 256, 48),
        ("resnet34d", 64, 32),
        ("resnet34d", 256, 48),
    ]
    assert {(case.batch_size, case.images_per_scene, case.undersample) for case in found} == {(12, 5, False)}
    assert {(case.upscale, case.self_attention, case.aspp) for case in found} == {(3, True, False)}
    others = {(case.image_selection, case.precision, case.ema_decay, case.separation_weight) for case in found}
    assert others == {("all", "fp32", 0.99, 0.5)}


def test_what_does_not_vary_is_of_the_training_table(write_study: Callable[..., Path]) -> None:
    """One case, the one that every trial is."""
    study = _study(write_study)
    assert cases(study) == [study.base]


def test_where_a_field_does_not_vary_it_has_its_own_value(write_study: Callable[..., Path]) -> None:
    """A conditional batch size of at most 4 leaves trials of other encoders with the 12 of the recipe."""
    path = write_study({'encoder = "xresnet18"\n': "", "batch_size = 4\n": ""})
    path.write_text(
        path.read_text()
        + 'encoder = { choice = ["xresnet34", "resnet50d"] }\n'
        + 'batch_size = { choice = [2, 4], when = { encoder = "resnet50d" } }\n'
    )
    assert [case.batch_size for case in cases(load_study(path))] == [12, 12]


@pytest.mark.parametrize(
    ("peaks", "share"),
    [
        ([5.1], 0.25),  # 0.9 · 24 = 21.6 GiB hold 4 of 5.1
        ([5.1, 9.0], 0.5),  # the larger case decides
        ([7.0], 0.3333),  # rounded down: three of 0.3334 are more than a GPU
        ([3.5], 0.1666),
        ([0.5], 0.125),  # 43 would fit, but 8 at most
        ([12.0], 1.0),
        ([23.5], 1.0),  # it fits, if only just
    ],
)
def test_the_share_packs_all_cases_that_fit(peaks: list[float], share: float) -> None:
    """Of a card with 24 GiB; what does not fit has no say."""
    assert gpu_share([TOO_LARGE, KILLED, *(replace(FITS, peak_mib=peak * GIB) for peak in peaks)]) == share


def test_a_processor_has_no_share() -> None:
    """Also beside a case whose process was killed, which cannot say what it ran on."""
    assert gpu_share([KILLED, replace(FITS, gpu=False, device="CPU x86_64, 2 threads")]) == 0.0


def test_a_study_of_which_nothing_fits_is_refused() -> None:
    """In one sentence that names each case, its reason, and the batch that would fit."""
    with pytest.raises(StudyInvalid) as caught:
        gpu_share([TOO_LARGE, KILLED])
    assert str(caught.value) == (
        "no case of this study fits: resnet50d at 255 px with 12 tiles: out of memory (6 would fit); regnety_320 at "
        "255 px with 12 tiles: the process was killed; lower batch_size or tile_size, choose a smaller encoder, or a "
        "device with more memory."
    )


def test_the_cost_by_hand(plan: Plan) -> None:
    """Two images, 8 training tiles at 4/s, and 4 validation tiles at 8/s are 2.5 s an epoch, 12 epochs 30 s.

    Two at once need 15 s, or 30 s if the two on a GPU take turns; a quarter of a node at $1 a second is $7.5, or $15.
    """
    study = replace(plan.study, prices={"gpu_node": 3600.0, "default": 1.0})
    plan = replace(plan, study=study)
    measured = _measured(plan, FITS)
    predicted = predict_cost(plan, measured, share=0.5, at_once=2, node_share=0.25, node_type="gpu_node")
    assert predicted.epochs == 12
    assert predicted.seconds_per_case == (2.5,)
    assert predicted.seconds_per_epoch == 2.5
    assert predicted.hours == pytest.approx((15 / 3600, 30 / 3600))
    assert predicted.price_per_hour == 900.0
    assert predicted.dollars == pytest.approx((7.5, 15.0))
    other = predict_cost(plan, measured, share=1.0, at_once=1, node_type="another")
    assert other.hours == pytest.approx((30 / 3600, 30 / 3600))
    assert other.dollars == pytest.approx((30 / 3600, 30 / 3600))


def test_repeats_cost_too_and_nothing_without_prices(plan: Plan) -> None:
    """Two further seeds of one configuration on one split are 4 epochs more."""
    plan = replace(plan, study=replace(plan.study, repeats=3))
    predicted = predict_cost(plan, _measured(plan, FITS), share=0.0, at_once=1)
    assert predicted.epochs == 16
    assert predicted.hours == pytest.approx((40 / 3600, 40 / 3600))
    assert predicted.dollars is None and predicted.price_per_hour is None


def test_the_cost_is_the_mean_of_what_can_train(plan: Plan) -> None:
    """2.5 s an epoch, 5 s of one that trains half of its batch at a time, and one that cannot train at all."""
    case = plan.study.base
    measured = Preflight("L4", "2.11.0", (case, case, case), (FITS, TOO_LARGE, KILLED))
    predicted = predict_cost(plan, measured, share=0.25, at_once=4)
    assert predicted.seconds_per_case == (2.5, 5.0, None)
    assert predicted.seconds_per_epoch == 3.75
    with pytest.raises(StudyInvalid, match="no case of this study fits"):
        predict_cost(plan, Preflight("L4", "2.11.0", (case,), (KILLED,)), share=1.0, at_once=1)


def test_the_table_says_it_all(plan: Plan) -> None:
    """A row a case, why one does not fit and what would, the share, the hours and the dollars."""
    plan = replace(plan, study=replace(plan.study, prices={"default": 3600.0}))
    case = plan.study.base
    measured = Preflight("NVIDIA L4", "2.11.0", (case, case, case), (FITS, TOO_LARGE, KILLED))
    predicted = predict_cost(plan, measured, share=0.25, at_once=4, node_share=0.25)
    assert describe_preflight(measured, predicted, 0.25, 4).splitlines() == [
        "preflight on NVIDIA L4 (24.0 GiB), torch 2.11.0",
        "  encoder               tile  batch  peak memory  tiles/s  s/epoch",
        "  xresnet34              255     12      5.1 GiB      4.0      2.5  fits",
        "  resnet50d              255     12     20.0 GiB      2.0      5.0  does not fit: out of memory; measured "
        "with 6 tiles, which do",
        "  regnety_320            255     12            –        –        –  does not fit: the process was killed",
        "gpu = 0.25: 4 at once on a GPU, 4 on the cluster",
        "predicted, if nothing is pruned: 12 epochs, 11 s to 45 s, $11 to $45",
        "  (from trainings that share a GPU without loss of speed, to such as take turns)",
    ]


@pytest.mark.parametrize(
    ("share", "verdict", "line"),
    [
        (0.25, "fits", "gpu = 0.25: 4 at once on a GPU, 4 on the cluster"),
        (0.5, "fits", 'gpu = 0.5: 2 at once on a GPU, 4 on the cluster ("auto" would be 0.25)'),
        (
            0.2,
            "does not fit into 0.2 of the GPU; trains with fewer tiles at a time",
            'gpu = 0.2: 5 at once on a GPU, 4 on the cluster ("auto" would be 0.25)',
        ),
    ],
)
def test_a_share_of_the_study_file(plan: Plan, share: float, verdict: str, line: str) -> None:
    """5.1 of 24 GiB do not fit into a fifth; the share that would do is named."""
    measured = _measured(plan, FITS)
    lines = describe_preflight(measured, predict_cost(plan, measured, share, 4), share, 4).splitlines()
    assert lines[2].endswith(f"2.5  {verdict}") and lines[3] == line


def test_the_table_of_a_processor(plan: Plan) -> None:
    """No GPU to share, no price, one duration."""
    measured = _measured(plan, replace(FITS, gpu=False, largest_batch=12))
    predicted = predict_cost(plan, measured, share=0.0, at_once=2)
    assert describe_preflight(measured, predicted, 0.0, 2).splitlines()[-2:] == [
        "gpu = 0: 2 at once on the cluster",
        "predicted, if nothing is pruned: 12 epochs, 15 s, no price given",
    ]


def test_preflight_json_round_trip(plan: Plan, tmp_path: Path) -> None:
    """What is saved is what is loaded; before that there is nothing, and a damaged file is named."""
    assert load_preflight(tmp_path) is None
    measured = _measured(plan, FITS)
    save_preflight(tmp_path, measured)
    assert load_preflight(tmp_path) == measured
    (tmp_path / "preflight.json").write_text('{"device": "L4"}')
    with pytest.raises(ResultsConflict, match=r"preflight\.json cannot be read \('torch'\); remove it"):
        load_preflight(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"seconds_per_epoch": "long"}'])
def test_a_damaged_forecast_is_named(plan: Plan, tmp_path: Path, text: str) -> None:
    """A dry run says what to do about it."""
    save_preflight(tmp_path, replace(_measured(plan, FITS), cases=tuple(cases(plan.study))))
    (tmp_path / "forecast.json").write_text(text)
    with pytest.raises(ResultsConflict, match=r"forecast\.json cannot be read \(.+\); remove it"):
        measured_cost(plan, tmp_path)


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Put a device and measurements in the place of Ray's; return the plans that were measured."""
    measured: list[Plan] = []

    def run(plan: Plan) -> list[BatchCost]:
        measured.append(plan)
        return [FITS for _ in cases(plan.study)]

    monkeypatch.setattr(module, "_describe_device", lambda study: ("L4", "2.11.0"))
    monkeypatch.setattr(module, "run_preflight", run)
    return measured


def test_a_measured_study_is_not_measured_again(
    plan: Plan, tmp_path: Path, measurements: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is asked for, has other cases, or runs on another device."""
    first = preflight(plan, tmp_path)
    assert preflight(plan, tmp_path) == first == load_preflight(tmp_path)
    assert len(measurements) == 1
    preflight(plan, tmp_path, again=True)
    assert len(measurements) == 2
    other = replace(plan, study=replace(plan.study, train={**plan.study.train, "batch_size": 8}))
    assert preflight(other, tmp_path).cases[0].batch_size == 8
    assert len(measurements) == 3
    monkeypatch.setattr(module, "_describe_device", lambda study: ("H100", "2.11.0"))
    assert preflight(other, tmp_path).device == "H100"
    assert len(measurements) == 4


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([], ""),
        ([NodeDiedError("gone"), NodeDiedError("gone"), LocalRayletDiedError()], ""),
        ([NodeDiedError("gone"), WorkerCrashedError()], "the process was killed (WorkerCrashedError)"),
        ([OutOfMemoryError("full")], "the process was killed (OutOfMemoryError)"),
        ([NodeDiedError("gone")] * 4, None),
        ([RuntimeEnvSetupError("no network")], None),
    ],
)
def test_only_what_a_case_does_itself_is_kept_of_it(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[RayError], reason: str | None
) -> None:
    """Not that a machine went away, with which the others of the study would be packed: another one measures."""
    left = list(errors)

    def get(answer: BatchCost) -> BatchCost:
        if left:
            raise left.pop(0)
        return answer

    task = SimpleNamespace(remote=lambda config: FITS)
    monkeypatch.setattr(module, "_describe_device", lambda study: ("L4", "2.11.0"))
    monkeypatch.setattr(module, "_task", lambda study, function: task)
    monkeypatch.setattr("sweep.preflight.ray.get", get)
    if reason is None:
        with pytest.raises(type(errors[0])):
            preflight(plan, tmp_path)
        assert load_preflight(tmp_path) is None
    else:
        (cost,) = preflight(plan, tmp_path).costs
        assert (cost.reason, cost.fits) == (reason, not reason)


@pytest.mark.parametrize(
    ("there", "later", "at_once", "price"),
    [
        ([], [("spot", 8)] * 3, 6, 4.0),  # measured on one that has gone since
        ([("spot", 4)], [("spot", 8)] * 3, 6, 8.0),
        ([("desk", 8)] * 4, [], 8, 1.0),
        ([], [], 1, 8.0),  # a cluster that does not grow has just lost all
    ],
)
def test_the_forecast_is_of_the_grown_cluster(
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: list[tuple[str, int]],
    later: list[tuple[str, int]],
    at_once: int,
    price: float,
) -> None:
    """Of as many trials as it will run, whatever machines are there now, at the price of those."""

    def nodes(described: list[tuple[str, int]]) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": cpu}, "Labels": {NODE_TYPE: kind}} for kind, cpu in described]

    study = replace(plan.study, resources=Resources(0.0, 4), prices={"spot": 8.0, "desk": 2.0})
    plan = replace(plan, study=study)
    monkeypatch.setattr("sweep.packing.preflight", lambda plan, results, again: _measured(plan, FITS))
    monkeypatch.setattr("sweep.packing.require_capacity", lambda study: None)
    monkeypatch.setattr("sweep.packing.ray.nodes", lambda: nodes(there))
    monkeypatch.setattr("sweep.packing.coming", lambda: nodes(later))
    assert f"gpu = 0: {at_once} at once on the cluster" in preflight_text(plan, tmp_path)
    assert json.loads((tmp_path / "forecast.json").read_text())["price_per_hour"] == price


def test_what_a_share_leaves_of_a_gpu_is_paid_for(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials of 0.6 of a GPU have the two of a node to themselves: half its price each."""
    plan = replace(plan, study=replace(plan.study, resources=Resources(0.6, 1), prices={"default": 4.0}))
    monkeypatch.setattr("sweep.packing.preflight", lambda plan, results, again: _measured(plan, FITS))
    monkeypatch.setattr("sweep.packing.require_capacity", lambda study: None)
    monkeypatch.setattr("sweep.packing.ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 16, "GPU": 2}}])
    monkeypatch.setattr("sweep.packing.coming", list)
    assert "gpu = 0.6: 1 at once on a GPU, 2 on the cluster" in preflight_text(plan, tmp_path)
    assert json.loads((tmp_path / "forecast.json").read_text())["price_per_hour"] == 2.0


@pytest.mark.slow
def test_on_a_real_cluster(plan: Plan, tmp_path: Path) -> None:
    """A case is measured in a process of its own; a killed process, and one that raises, stop no other."""
    study = replace(plan.study, resources=replace(plan.study.resources, gpu="auto"))
    plan = replace(plan, study=study)
    start_ray(None)
    try:
        measured = preflight(plan, tmp_path)
        assert [cost.fits for cost in measured.costs] == [True]
        assert measured.device == measured.costs[0].device

        def kill(config: TrainConfig) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        assert module._cost(module._task(study, kill), study.base).reason.startswith("the process was killed (")
        wrong = replace(plan, study=replace(study, train={**study.train, "encoder": "no_such"}))
        assert [(cost.fits, cost.reason[:15]) for cost in run_preflight(wrong)] == [(False, "EncoderUnknown:")]
        there = module.ray.cluster_resources().get("GPU", 0) >= 1
        assert (gpu_share(measured.costs) > 0) == there
    finally:
        stop_ray()
