"""The entry point of a study: python sweep/run.py [STUDY.toml] [--data DIR] …"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from sn7.errors import Sn7Error
from sn7.files import causes, is_full
from sn7.signals import exit_on_sigterm

SAMPLE = Path(__file__).parent / "studies" / "sample.toml"
DATABASES = ("sqlalchemy.", "sqlite3")
"""Packages whose errors are those of a database: no disk for it, no permission, or a damaged file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study; return the exit status: 0 done, 1 bad input, 2 usage, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    # fastai and torch announce deprecations of their own parts; what this command prints is for its users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        # Imported here, so that --help is quick and the processes that prepare images do not load Ray and torch.
        from sweep.driver import run_study

        with exit_on_sigterm():
            return run_study(options)
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = _sentence(error, options.results)
        if options.verbose or not sentence:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1


def _sentence(error: Exception, results: Path) -> str:
    """Return what a person is told of an error; empty where it is a fault of this program.

    Libraries wrap each other's errors, and Tune wraps what its event loop raises.
    """
    if is_full(error) and not isinstance(error, Sn7Error):
        from sweep.disk import full_disk

        return str(full_disk(results.resolve()))
    for cause in causes(error):
        if isinstance(cause, Sn7Error):
            return str(cause)
        if isinstance(cause, OSError):
            where = f"{cause.filename} cannot be used ({cause.strerror})" if cause.filename else str(cause)
            return f"{where}; mend that, or give another place."
        if type(cause).__module__.startswith("ray."):
            return f"the Ray cluster has failed ({' '.join(str(cause).split())[:300]}); go on with --resume."
        if type(cause).__module__.startswith(DATABASES):
            reason = str(cause).splitlines()[0]
            return f"a database in {results.resolve()} cannot be used ({reason}); mend that, and go on with --resume."
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweep/run.py", description="Run a study: search, cross-validate, ensemble, predict."
    )
    parser.add_argument("study", nargs="?", type=Path, default=SAMPLE, help="study file (default: the sample's)")
    parser.add_argument(
        "--data",
        help="folder or URL of a data set, raw or prepared (default: data.folder of the study file)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="parent of the study's folder (default: results)",
    )
    parser.add_argument("--address", help="Ray cluster to join, such as auto (default: one of its own on this machine)")
    parser.add_argument("--trials", type=int, help="configurations to try, in place of the study file's")
    parser.add_argument("--max-hours", type=float, help="end the search after this many hours, in order")
    parser.add_argument("--tracking-uri", help="MLflow server or store (default: sqlite below --results)")
    parser.add_argument("--resume", action="store_true", help="go on with what the results folder holds")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan, the first configurations and the cost; train nothing",
    )
    parser.add_argument(
        "--preflight", action="store_true", help="measure memory and speed on a node, print the cost; train nothing"
    )
    parser.add_argument(
        "--tune-tracks",
        nargs="?",
        type=_tries,
        const=60,
        metavar="TRIES",
        help="tune the rules of sn7 track on the out-of-fold probs of a complete study (default: 60 a search)",
    )
    parser.add_argument("--sync", action="store_true", help="deliver the records that MLflow has missed; run nothing")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    return parser


def _tries(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} cannot be used; wanted 1 or more tries a search")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
