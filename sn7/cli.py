"""The `sn7` command: one sub-command a stage, in `sn7.commands`. What each needs is imported when it runs."""

import argparse
import io
import sys
import warnings
from collections.abc import Sequence

import sn7
from sn7.commands import (
    changes,
    check,
    download,
    explore,
    export,
    find_lr,
    folds,
    masks,
    predict,
    prepare,
    sample,
    score,
    track,
    train,
)
from sn7.errors import Interrupted, Sn7Error
from sn7.signals import exit_on_sigterm

__all__ = ["main"]

COMMANDS = (
    sample,
    download,
    check,
    explore,
    prepare,
    masks,
    folds,
    find_lr,
    train,
    predict,
    track,
    changes,
    score,
    export,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; return the exit status: 0 done, 1 bad input, 2 usage, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    # fastai and torch announce deprecations of their own parts; what this command prints is for its users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal, or a file name, may have other letters
    try:
        with exit_on_sigterm():
            print(options.command(options))
        return 0
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except (Sn7Error, OSError) as error:
        if options.verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sn7", description=sn7.__doc__)
    parser.add_argument("--version", action="version", version=f"sn7 {sn7.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        command = module.add(commands)
        command.add_argument("--verbose", action="store_true", help="show the traceback of an error")
        command.formatter_class = argparse.RawDescriptionHelpFormatter  # keeps the lines of the epilog
    return parser


if __name__ == "__main__":
    sys.exit(main())
