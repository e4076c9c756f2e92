"""Whether what tuning has found is used: by an interval over clusters of scenes, or by a margin where they are few."""

import pytest

from sn7.metrics import Counts
from sweep.footprints import Footprints
from sweep.found import Found, Tuned


def _found(before: list[Counts], after: list[Counts], together: int = 1) -> Footprints:
    """Return what two folds of scenes came to before and after a tuning; so many scenes are a cluster."""

    def folds(counts: list[Counts]) -> tuple[dict[str, Counts], ...]:
        named = {f"scene{number}": one for number, one in enumerate(counts)}
        return tuple({name: named[name] for name in list(named)[start::2]} for start in (0, 1))

    def score(counts: list[Counts]) -> tuple[float, ...]:
        return (sum(counts, start=Counts()).dice,)

    params = {"weights": {"0": 1.0}, "probs": "plain", "rules": {}}
    counts = folds(after), folds(before)
    found = (Found(None, params, score(after), ((params, score(before)),), (0, 1)),)
    tuned = Tuned(params, score(after), score(after), score(before), found, *counts, (), ())
    return Footprints("f1", tuned, {f"scene{number}": number // together for number in range(len(before))}, seed=0)


@pytest.mark.parametrize(("scenes", "gain", "used"), [(6, 4, False), (6, 8, True), (10, 4, False)])
def test_few_scenes_need_a_margin(scenes: int, gain: int, used: bool) -> None:
    """Of 100 footprints a scene 40 are found before: four more of each are F1 0.04, eight more 0.08."""
    before, after = Counts(40, 60, 60), Counts(40 + gain, 60 - gain, 60 - gain)
    found = _found([before] * scenes, [after] * scenes, together=2)
    assert (found.interval, found.helps) == (None, used)
    assert "On fewer than 6 clusters of scenes a gain below 0.05 may be chance." in found.sentence
    assert found.sentence.endswith("It is therefore not used.") == (not used)


def test_many_scenes_are_resampled_in_pairs() -> None:
    """A gain that each scene shares, however hard it is, is used; one footprint more, or one scene's gain, is not."""
    before = [Counts(10 + 5 * number, 50, 50) for number in range(12)]
    shared = _found(before, [Counts(c.tp + 2, c.fp - 2, c.fn - 2) for c in before])
    assert shared.helps and shared.interval is not None and 0 < shared.interval[0] < shared.interval[1] < 0.05
    assert f"the gain is {shared.interval[0]:+.3f} to {shared.interval[1]:+.3f} (95 % interval)" in shared.sentence
    assert shared.to_json()["gain_interval"] == shared.interval
    for one in (Counts(11, 49, 49), Counts(60, 0, 0)):
        alone = _found(before, [one, *before[1:]])
        assert alone.tuned.nested > alone.tuned.baseline
        assert not alone.helps and alone.sentence.endswith("It is therefore not used.")
