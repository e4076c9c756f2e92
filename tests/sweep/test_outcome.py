from sn7.config import TrainConfig
from sweep.crossval import Member
from sweep.outcome import _untunable


def test_separation_outputs_are_not_tuned_over() -> None:
    """Out-of-fold probs lack them, so that what was tuned on these would part footprints worse than before."""
    plain, separating = (Member(trial, TrainConfig(separation_weight=trial / 10)) for trial in (0, 3))
    assert _untunable([plain]) == ""
    assert "was not tuned" in _untunable([plain, separating]) and "trial 3 has outputs" in _untunable(
        [plain, separating]
    )
