"""The packages whose versions change what a training comes to, in its last digits at least."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["unlike", "versions", "warning_of"]

PACKAGES = ("torch", "fastai", "timm", "numpy")
NAMED: set[str] = set()
"""Nodes that this process has warned of."""


def versions() -> str:
    """Return what this process has, such as "torch 2.11.0, fastai 2.8.4 …", or "absent" in place of a version.

    Without the build, since a machine without a GPU may have another one of the same code.
    """
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "absent"


def unlike(there: str, here: str) -> str:
    """Return where versions there differ from those here, such as "torch 2.10.0 (here 2.11.0)", or nothing."""
    ours = dict(part.split(" ") for part in here.split(", "))
    pairs = (part.split(" ") for part in there.split(", "))
    return ", ".join(f"{name} {found} (here {ours[name]})" for name, found in pairs if found != ours[name])


def warning_of(node: str, name: str, there: str) -> str:
    """Return a warning of a node, by Ray's identity, whose versions are others than here; once, and else nothing."""
    other = unlike(there, versions())
    if not other or node in NAMED:
        return ""
    NAMED.add(node)
    return f"warning: {name} trains with {other}; its last digits may differ"
