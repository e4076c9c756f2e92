"""An MLflow server or store as the delivery sees it: every operation here may be repeated and changes nothing then."""

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sn7.errors import TrackingUnavailable
from sweep.journal import Run

__all__ = ["METRICS_MAX", "PARAMS_MAX", "Server", "check_address", "connect", "reason", "shown"]

# Read by MLflow at each request. Its own 7 retries of 120 s make a dead server cost half an hour, and one of them
# can make a run twice; the delivery tries again by itself.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # outages are told in one line, without addresses' passwords
logging.getLogger("alembic").setLevel(logging.WARNING)

METRICS_MAX, PARAMS_MAX = 800, 100
"""Of one request: MLflow takes 1000 metrics, params and tags together, 100 of them params and 100 tags."""
DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
DATABASES = ("sqlite", *DATABASE_SERVERS)
WANTED = "give http://HOST:PORT of an MLflow server, or leave it out for the embedded store"


def shown(uri: str) -> str:
    """Return an address without user, password and query, for logs and errors."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if scheme.startswith(DATABASE_SERVERS):
        url = _account(uri)
        if url is None or "@" in f"{url.host}{url.database}":  # no telling what of it is the password
            return f"{scheme}://***"
        return sqlalchemy.URL.create(scheme, host=url.host, port=url.port, database=url.database).render_as_string()
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def _account(uri: str) -> sqlalchemy.URL | None:
    """Return the address of a database as SQLAlchemy reads it, which takes a slash in a password; None if it cannot."""
    try:
        return sqlalchemy.make_url(uri)
    except (ValueError, sqlalchemy.exc.ArgumentError):
        return None


def _secrets(uri: str) -> set[str]:
    """Return what an address keeps secret, as it is written and as it is meant."""
    scheme, _, rest = uri.partition("://")
    passwords: set[str] = set()
    if scheme.startswith(DATABASE_SERVERS):
        place = rest.rpartition("@")[0]
        if url := _account(uri):
            passwords = {str(url.password or ""), (url.host or "").rpartition("@")[0]}
    else:
        place = rest.partition("/")[0].rpartition("@")[0]
    written = {place, place.partition(":")[2], uri.partition("?")[2]}
    return (written | {unquote(secret) for secret in written} | passwords) - {""}


def reason(error: BaseException, uri: str) -> str:
    """Return an error as a short line without what the address keeps secret."""
    text = " ".join(str(error).split()).replace(uri, shown(uri)) or type(error).__name__
    # Of what requests and urllib3 wrap around each other, the innermost says it.
    text = text.partition("Caused by ")[2].strip("()\"' ").rpartition(": ")[2] or text
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text if len(text) <= 300 else f"{text[:300]}…"


def check_address(uri: str) -> None:
    """Raise TrackingUnavailable where an address can never work, whatever runs there."""
    scheme = uri.partition(":")[0].partition("+")[0]
    try:
        if scheme in ("http", "https"):
            if not urlsplit(uri).hostname:
                raise ValueError("it names no host")
        elif scheme in DATABASES:
            sqlalchemy.create_engine(uri)  # connects to nothing yet, but needs the database's driver
        else:
            MlflowClient(uri)
    except (MlflowException, ImportError, ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise TrackingUnavailable(
            f"--tracking-uri {shown(uri)} is no address that can be used ({reason(error, uri)}); {WANTED}."
        ) from error


def connect(uri: str, study: str, identity: str, artifacts: Path) -> "Server":
    """Return the server, with its schema and the study's experiment in place.

    `artifacts` is the folder of the files where no server keeps them. Raises TrackingUnavailable where it does not
    answer, or does not let us in.
    """
    check_address(uri)
    try:
        _try_database(uri)
        server = Server(MlflowClient(uri), study, identity)
        server.open(None if uri.startswith("http") else artifacts.resolve().as_uri())
        return server
    except TrackingUnavailable:
        raise
    except Exception as error:  # whatever a driver, a proxy or MLflow raises: the sentence is the same
        code = getattr(error, "error_code", "")
        if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"):
            sentence = "does not let us in ({}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        else:
            sentence = f"does not answer as an MLflow server ({{}}); start one there, {WANTED}"
        raise TrackingUnavailable(f"--tracking-uri {shown(uri)} {sentence.format(reason(error, uri))}.") from error


def _try_database(uri: str) -> None:
    """Raise what a database answers: MLflow itself would try for minutes."""
    if uri.startswith("http") or not uri.startswith(DATABASES):
        return
    address = sqlalchemy.make_url(uri)
    if uri.startswith("sqlite") and address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(address)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


class Server:
    """The runs of one study on one MLflow server. Methods raise what MLflow raises."""

    def __init__(self, client: MlflowClient, study: str, identity: str) -> None:
        self.client, self.study, self.identity = client, study, identity
        self.experiment = ""
        self._runs: dict[Run, str] = {}
        self._states: dict[Run, str] = {}
        self._doubtful: set[Run] = set()

    def open(self, location: str | None) -> None:
        """Find or make the study's experiment, and prove that it can be written."""
        found = self.client.get_experiment_by_name(self.study)
        if found and found.lifecycle_stage != "active":
            raise ValueError(f"its experiment {self.study} was deleted: restore it, or name the study otherwise")
        # Without a location of its own, a store without a server would put artefacts below the current directory.
        self.experiment = found.experiment_id if found else self.client.create_experiment(self.study, location)
        self.probe()

    def probe(self) -> None:
        """Write something of no weight; raises where the server takes no writes."""
        self.client.set_experiment_tag(self.experiment, "sn7.seen", datetime.now(UTC).isoformat(timespec="seconds"))

    def _search(self, run: Run) -> list[Any]:
        tags = {**run.tags, "sn7.identity": self.identity}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(self.client.search_runs([self.experiment], query, order_by=["attributes.start_time ASC"]))

    def run(self, run: Run, time: int) -> str:
        """Return the id of a run, which is found by its tags, or made with this start time (ms)."""
        if run in self._runs:
            return self._runs[run]
        found = self._search(run)
        if found:
            self._runs[run], self._states[run] = found[0].info.run_id, found[0].info.status
            return self._runs[run]
        parent = {"mlflow.parentRunId": self.run(run.parent, time)} if run.parent else {}
        tags = {**run.tags, **parent, "sn7.identity": self.identity}
        doubtful = run in self._doubtful
        self._doubtful.add(run)
        made = self.client.create_run(self.experiment, time, tags, run.label or self.study)
        if not doubtful:  # else an earlier attempt may still turn up
            self._doubtful.discard(run)
        self._runs[run], self._states[run] = str(made.info.run_id), "RUNNING"
        return self._runs[run]

    def settle(self) -> None:
        """Delete what an unanswered request made after all, beside the run that took its place."""
        for run in sorted(self._doubtful & self._runs.keys()):
            for other in self._search(run):
                if other.info.run_id != self._runs[run]:
                    self.client.delete_run(other.info.run_id)
            self._doubtful.discard(run)

    def log(
        self,
        run: Run,
        time: int,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write to a run, in one request where MLflow's limits allow it."""
        run_id = self.run(run, time)
        all_params = [Param(key, value) for key, value in (params or {}).items()]
        all_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        batches = [_cut(metrics, METRICS_MAX), _cut(all_params, PARAMS_MAX), _cut(all_tags, PARAMS_MAX)]
        for some_metrics, some_params, some_tags in zip_longest(*batches, fillvalue=[]):
            self.client.log_batch(run_id, some_metrics, some_params, some_tags)

    def status(self, run: Run, time: int, status: str) -> None:
        """Set MLflow's state of a run; `time` (ms) is the end of one that ends."""
        run_id = self.run(run, time)
        if status == "RUNNING":
            if self._states[run] != status:
                self.client.update_run(run_id, status)
        else:
            self.client.set_terminated(run_id, status, time)
        self._states[run] = status

    def upload(self, run: Run, time: int, path: Path, folder: str | None) -> None:
        """Copy a file, or a folder's files, to a run's artefacts; raises FileNotFoundError where it is gone."""
        if not path.exists():
            raise FileNotFoundError(f"{path} is gone")
        run_id = self.run(run, time)
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def text(self, run: Run, time: int, text: str, name: str) -> None:
        """Write a text file among a run's artefacts."""
        self.client.log_text(self.run(run, time), text, name)


def _cut(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
