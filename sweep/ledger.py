"""What the study's database holds of its trials, read again only after a trial's state has changed.

The driver alone writes the database. Optuna cannot know that: whenever it is asked for any trial, it reads all that are
unfinished, with every report, which takes 0.1 s where 3,000 reports are in.
"""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweep.search import next_trial, set_waiting, write_report
from sweep.study import Study

__all__ = ["Ledger"]


class Ledger:
    """The trials of one Optuna study, for the one process that changes them."""

    def __init__(self, opened: optuna.Study) -> None:
        self.opened = opened
        self._trials: list[FrozenTrial] | None = None
        self._reported = {trial.number: dict(trial.intermediate_values) for trial in self.trials}

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number, as they were when one's state changed last; not to be written to."""
        if self._trials is None:
            self._trials = self.opened.get_trials(deepcopy=False)
        return self._trials

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that have ended for good."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def waiting(self) -> bool:
        """Whether a trial waits: one that was cut off, or the recipe's."""
        return any(trial.state == TrialState.WAITING for trial in self.trials)

    def next(self, study: Study, earlier: Sequence[FrozenTrial]) -> optuna.Trial | None:
        """Return the trial to run next, RUNNING, or None where none is left; see sweep.search.next_trial."""
        self._trials = None
        return next_trial(self.opened, study, earlier)

    def report(self, trial: optuna.Trial, value: float, step: int) -> None:
        """Write down what a trial has reached at a step, where that is not known yet."""
        known = self._reported.setdefault(trial.number, {})
        if step > max(known, default=0):
            write_report(self.opened, trial, value, step)
            known[step] = value

    def reached(self, step: int) -> dict[int, float]:
        """Return what each trial that has been at a step had reached there, by number."""
        return {number: known[step] for number, known in self._reported.items() if step in known}

    def last_step(self, number: int) -> int:
        """Return the last step that a trial has reported, 0 before the first."""
        return max(self._reported.get(number, {}), default=0)

    def tell(self, trial: optuna.Trial, state: TrialState, value: float | None = None) -> FrozenTrial:
        """End a trial for good, and return it as the database has it now."""
        self._trials = None
        return self.opened.tell(trial, value, state)

    def wait(self, trial: optuna.Trial) -> None:
        """Put a running trial back into the queue."""
        self._trials = None
        set_waiting(self.opened, trial)
