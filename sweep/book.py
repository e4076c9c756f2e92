"""The life of each trial: what happens to it is told to Optuna's database, the records and the board in one place.

    (new) → RUNNING → COMPLETE   trained to its end
                    → PRUNED     stopped at a rung
                    → FAILED     its loss became NaN, its configuration cannot be trained, or `max_failures` are used up
                    → PREEMPTED  cut off: goes on from its checkpoint, under its number, in this start or a later one

The database is written first. A driver that dies between two writes leaves trials RUNNING there, or records behind
it: `endings.mend` brings both up to date when the study is opened again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from math import inf, nan
from typing import Any

import optuna
import ray
from optuna.trial import FrozenTrial, TrialState

from sn7.history import EpochMetrics
from sweep.attempts import Attempt, Doubt
from sweep.board import Board, configuration_text
from sweep.budget import Budget
from sweep.endings import ERROR, FAILURES, PREEMPTED, RUNG, next_attempt, record_end, tidy
from sweep.failures import Failure
from sweep.halving import keeps, rungs
from sweep.ledger import Ledger
from sweep.records import Records
from sweep.search import ATTRIBUTES, NOTEBOOK, STATES
from sweep.stopping import StopFile
from sweep.study import Study
from sweep.trial import Job, Objective
from sweep.usage import GPU_USE, Place
from sweep.versions import warning_of

__all__ = ["FULL_DISK", "UNFIT", "Book"]

TICK_SECONDS = 2.0
"""How often the driver looks at the cluster."""
PLATEAU, EXHAUSTED, FULL_DISK, UNFIT = "patience", "search space", "full disk", "unfit node"
GENTLE = ("", PLATEAU, EXHAUSTED)
"""Reasons for an end of the search that let what runs come to its own."""


class Book:
    """Keeps the trials of one start of a study; its methods are called from Tune's event loop, one at a time."""

    def __init__(
        self,
        study: Study,
        job: Job,
        opened: optuna.Study,
        earlier: Sequence[FrozenTrial],
        records: Records,
        board: Board,
        budget: Budget,
        about: Mapping[str, str],
        spare: int = 0,
        most: int = 0,
        nodes: Callable[[], Sequence[Mapping[str, Any]]] = ray.nodes,
    ) -> None:
        """Open the book.

        `about` says where the study comes from, as tags of each trial's run. `spare` trials wait beyond what the
        nodes have room for: a cluster that grows with what is asked of it needs one. Where it is known that it grows
        until `most` trials run, so many are asked for at once: machines that boot side by side are there sooner.
        """
        self.nodes, self.looked, self.capacity, self.spare, self.most = nodes, -inf, 0, spare, most
        self.study, self.job, self.earlier, self.about = study, job, earlier, about
        self.ledger = Ledger(opened)
        self.records, self.board, self.budget = records, board, budget
        self.stop = StopFile(job.results)
        self.rungs = rungs(job.base.epochs, len(job.splits), study.grace)
        self.attempts: dict[str, Attempt] = {}
        self.doubts: list[Doubt] = []
        self.alive: frozenset[str] = frozenset()
        self.over = ""
        """Why the search ends before its trials are done: a budget's name, plateau, exhausted or interrupted."""
        self.unfit = ""
        """What a node lacks, where that is why."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its parts down for a restore that never happens

    def tick(self) -> None:
        """Look at the nodes, which come and go, and add up what they cost; now and then, however often it is called."""
        if time.monotonic() - self.looked > TICK_SECONDS:
            self.looked = time.monotonic()
            nodes = self.nodes()
            self.alive = frozenset(node["NodeID"] for node in nodes if node["Alive"])
            for here in self.attempts.values():
                here.there |= self.alive  # a cluster that grows brings the machine after its trial was handed out
            self.capacity = max(self.budget.tick(len(self.attempts), nodes) + self.spare, self.most)
            self._settle()
            self._cut_off()
            self.board.tick()

    def _settle(self) -> None:
        """Tell lost machines from processes that died by themselves, where that is known by now."""
        doubts, self.doubts = self.doubts, []
        for doubt in doubts:
            if doubt.attempt.lost(self.alive):
                self._failed(doubt.attempt, replace(doubt.failure, kind="lost"))
            elif time.monotonic() > doubt.until:
                self._failed(doubt.attempt, replace(doubt.failure, kind="other"))
            else:
                self.doubts.append(doubt)

    @property
    def done(self) -> bool:
        """Whether the search has ended: nothing runs, and nothing will."""
        if self.attempts or self.doubts:
            return False
        goes_on = self.over in GENTLE and self.ledger.waiting
        return len(self.ledger.ended) >= self.study.trials or bool(self.over and not goes_on)

    @property
    def idle(self) -> bool:
        """Whether the search must end now and nothing that runs has begun to train: machines may never come."""
        return self.over not in GENTLE and not any(here.node for here in self.attempts.values())

    def next(self, attempt: str) -> dict[str, Any] | None:
        """Return fields and number of the trial to run as `attempt`, and which of its attempts that is.

        None where there is no trial to run now.
        """
        self.tick()
        if self._cut_off() or len(self.attempts) >= self.capacity:
            return None
        if len(self.ledger.ended) + len(self.attempts) + len(self.doubts) >= self.study.trials:
            return None
        if not self.ledger.waiting:
            if self.over == EXHAUSTED:
                return None
            if self._plateau():
                self.over = PLATEAU
                return None
        self.over = ""
        trial = self.ledger.next(self.study, self.earlier)
        if trial is None:
            self.over = EXHAUSTED
            return None
        self.attempts[attempt] = Attempt(trial, there=self.alive)
        return {**trial.params, "trial": trial.number, "attempt": next_attempt(trial)}

    def _cut_off(self) -> bool:
        """Return whether running trials must stop: a budget used up, or Ctrl-C; of a search that is not done."""
        if self.over in GENTLE and len(self.ledger.ended) < self.study.trials:
            if used_up := self.budget.used_up():
                self.over = used_up
                self.stop.request()  # so that the trainings leave, with a checkpoint
            elif self.stop.requested():
                self.over = "interrupted"
        return self.over not in GENTLE

    def _plateau(self) -> bool:
        """Return whether `patience` trials have ended since the best one did; a pruned one is never the best."""
        ended = sorted(self.ledger.ended, key=lambda trial: (trial.datetime_complete, trial.number))
        values = [trial.value if trial.state == TrialState.COMPLETE else None for trial in ended]
        best = max((value for value in values if value is not None), default=None)
        return 0 < self.study.patience <= len(values) - 1 - (values.index(best) if best is not None else -1)

    def started(self, attempt: str) -> None:
        """Note that an attempt has begun: its trial's run is open."""
        trial = self.attempts[attempt].trial
        # Not as a TrainConfig: values that do not go together fail the trial, not the driver.
        config = {**self.job.base.to_dict(), **trial.params}
        notebook = {"recipe": "notebook"} if trial.user_attrs.get(NOTEBOOK) else {}
        self.records.start(trial.number, config, {**self.about, **notebook})
        if notebook:
            self.board.notebook = trial.number
        self.board.start(trial.number, configuration_text(trial.params))

    def result(self, attempt: str, result: Mapping[str, Any]) -> bool:
        """Note a report; return whether the attempt goes on."""
        here = self.attempts[attempt]
        here.last = dict(result)
        if "place" in result:
            self._arrived(here, result)
        step = int(result["step"])
        if "epoch" in result:
            self._record(here, step, result["split"], result["epoch"], result["objective"], dict(result["system"]))
            self._show(here, result)
        if step:
            self.ledger.report(here.trial, result["objective"], step)
        # An epoch that was over before the search was asked to end has no checkpoint: it leaves within the next.
        here.verdict = self._verdict(here, step, kept="epoch" not in result or result["kept"])
        return not here.verdict

    def _arrived(self, here: Attempt, result: Mapping[str, Any]) -> None:
        """Note where an attempt runs, and the epochs of earlier ones that were trained and never reported."""
        place: Place = result["place"]
        here.node = place.node
        self.records.tag(here.trial.number, asdict(place))
        if warning := warning_of(place.node, f"node {place.host}", place.versions):
            self.board.say(warning)
        before = Objective()
        for split, metrics in result["past"]:
            before.add(split, metrics)
            value = before.result()["objective"]
            self._record(here, before.step, split, metrics, value, {})
            self.ledger.report(here.trial, value, before.step)

    def _record(
        self, here: Attempt, step: int, split: int, epoch: EpochMetrics, value: float, system: dict[str, float]
    ) -> None:
        """Record an epoch; the records leave out what they have."""
        number, metrics = here.trial.number, {**asdict(epoch), **system}
        del metrics["epoch"]
        if len(self.job.splits) > 1:
            self.records.fold_epoch(number, split, epoch.epoch, metrics)
            metrics = {}
        self.records.epoch(number, step, {**metrics, "objective": value})

    def _show(self, here: Attempt, result: Mapping[str, Any]) -> None:
        epoch: EpochMetrics = result["epoch"]
        self.budget.epoch(epoch.seconds)
        several = len(self.job.splits) > 1
        where = f"{self.job.splits[result['split']].name if several else ''} epoch {epoch.epoch}/{self.job.base.epochs}"
        # The mean over the folds begun is no value to beat: the next fold may be a harder one.
        value = nan if several and result["step"] < self.job.steps else result["objective"]
        gpu = dict(result["system"]).get(GPU_USE)
        self.board.epoch(here.trial.number, where.strip(), value, epoch.tiles_per_s, gpu)

    def _verdict(self, here: Attempt, step: int, kept: bool) -> str:
        """Return PREEMPTED or PRUNED where the trial is to be stopped; at its last step it is not."""
        if step >= self.job.steps:
            return ""
        if self._cut_off():
            return "PREEMPTED" if kept else ""
        attributes = here.trial.user_attrs
        last = self.ledger.last_step(here.trial.number)
        passed = [rung for rung in self.rungs if attributes.get(RUNG, 0) < rung <= last]
        if not passed or attributes.get(NOTEBOOK):  # what every leaderboard is measured by trains to its end
            return ""
        rung = passed[-1]
        reached = self.ledger.reached(rung)
        own = reached.pop(here.trial.number, None)
        if own is not None and not keeps(own, list(reached.values())):
            return "PRUNED"
        here.trial.set_user_attr(RUNG, rung)
        return ""

    def ended(self, attempt: str) -> None:
        """Note that an attempt has come to its end, or was stopped as `result` said."""
        here = self.attempts.pop(attempt)
        state = here.verdict or ("COMPLETE" if here.last["step"] >= self.job.steps else "PREEMPTED")
        if state == "PREEMPTED":
            self._preempt(here)
            return
        self._describe(here)
        if state == "COMPLETE":
            self._close(self.ledger.tell(here.trial, TrialState.COMPLETE, here.last["objective"]))
        else:
            self._close(self.ledger.tell(here.trial, TrialState.PRUNED))

    def failed(self, attempt: str, failure: Failure) -> None:
        """Note that an attempt has ended without a result; its trial goes on with another one, or is FAILED."""
        here = self.attempts.pop(attempt)
        if failure.kind == "doubtful":
            self.doubts.append(Doubt(here, failure, time.monotonic() + failure.doubt_s))
            self.board.retry(here.trial.number, failure.reason)
        elif failure.kind == "stopped":
            self._preempt(here)
        else:
            self._failed(here, failure)

    def _failed(self, here: Attempt, failure: Failure) -> None:
        here.trial.set_user_attr(ERROR, failure.reason)
        free = failure.kind in ("lost", "full", "unfit")
        name = PREEMPTED if free else FAILURES
        count = here.trial.user_attrs.get(name, 0) + 1
        here.trial.set_user_attr(name, count)
        if failure.kind in ("full", "unfit"):
            self.over, self.unfit = (FULL_DISK, "") if failure.kind == "full" else (UNFIT, failure.reason)
            self.stop.request()
        if free or (failure.kind == "other" and count <= self.study.max_failures):
            self.board.retry(here.trial.number, failure.reason)
            self._wait(here, failure.traceback)
            return
        self.board.say(f"trial {here.trial.number} has FAILED: {failure.reason}")
        self._describe(here)
        self._close(self.ledger.tell(here.trial, TrialState.FAIL), failure.traceback)

    def recovered(self, attempt: str, reason: str) -> int:
        """Note that Tune itself starts an attempt again under the same name; return which of the trial's it is now."""
        trial = self.attempts[attempt].trial
        trial.set_user_attr(PREEMPTED, trial.user_attrs.get(PREEMPTED, 0) + 1)
        self.board.retry(trial.number, reason)
        return next_attempt(trial)

    def _preempt(self, here: Attempt) -> None:
        here.trial.set_user_attr(PREEMPTED, here.trial.user_attrs.get(PREEMPTED, 0) + 1)
        self._wait(here)

    def _wait(self, here: Attempt, error: str = "") -> None:
        self._describe(here)
        number = here.trial.number
        self.ledger.wait(here.trial)
        self.records.end(number, "PREEMPTED", {}, error)
        self.board.end(number, "PREEMPTED")

    def _describe(self, here: Attempt) -> None:
        for name in ATTRIBUTES:
            if name in here.last:
                here.trial.set_user_attr(name, here.last[name])

    def _close(self, trial: FrozenTrial, error: str = "") -> None:
        record_end(self.records, self.job, trial, error)
        tidy(self.job, trial)
        left = self.job.steps - int(trial.user_attrs.get("epochs_trained", 0))
        self.board.end(trial.number, STATES[trial.state], left)
