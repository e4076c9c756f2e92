"""The entry point of a study: python sweep/run.py [STUDY.toml] [--data DIR] …"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from sn7.errors import Sn7Error

SAMPLE = Path(__file__).parent / "studies" / "sample.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study; return the exit status: 0 done, 1 bad input, 2 usage, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    # fastai and torch announce deprecations of their own parts; what this command prints is for its users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        # Imported here, so that --help is quick and the processes that prepare images do not load Ray and torch.
        from sweep.driver import run_study

        return run_study(options)
    except (Sn7Error, OSError) as error:
        if options.verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweep/run.py", description="Run a study: search, cross-validate, ensemble, predict."
    )
    parser.add_argument("study", nargs="?", type=Path, default=SAMPLE, help="study file (default: the sample's)")
    parser.add_argument("--data", type=Path, help="folder of the data set (default: data.folder of the study file)")
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
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
