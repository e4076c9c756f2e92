"""What the documentation names is there: files, commands, options, and a study file that is one."""

import argparse
import re
from pathlib import Path

import pytest

from sn7.cli import _parser as sn7_parser
from sweep.run import _parser as run_parser
from sweep.studyfile import load_study

ROOT = Path(__file__).parents[1]
PAGES = [page for folder in (".", "docs", "results", "benchmarks") for page in sorted((ROOT / folder).glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
OPTION = re.compile(r"--\[?(?:no-\])?([a-z][a-z-]+)")


def _commands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action for action in sn7_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {**commands.choices, "sweep/run.py": run_parser()}


COMMANDS = _commands()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files(page: Path) -> None:
    """Each link leads to a file, and each file of the project that is named in the text is one."""
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link}
    assert [link for link in sorted(links) if not (page.parent / link).exists()] == []
    named = set(re.findall(r"`((?:sn7|sweep|tests|benchmarks|docs)/[\w/]+\.\w+)", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def _lines() -> list[tuple[str, str]]:
    """Return each command in a block of code, with its continuation lines, and the text after its name."""
    found = []
    for page in PAGES:
        for _, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            joined = re.sub(r"\\\n", " ", block)
            joined = re.sub(r"\n {8,}(?=\[)", " ", joined)
            for line in joined.splitlines():
                for part in re.split(r"&&|;|\s#\s", line):
                    if match := re.search(r"^\s*sn7 ([a-z-]+)(.*)|(sweep/run\.py)(.*)", part):
                        found.append((match[1] or match[3], match[2] or match[4] or ""))
    return found


def test_commands_and_options() -> None:
    """Each that a block of code shows is one, and all commands are shown."""
    lines = _lines()
    for name, rest in lines:
        assert name in COMMANDS, name
        known = {option.lstrip("-") for action in COMMANDS[name]._actions for option in action.option_strings}
        assert set(OPTION.findall(rest)) <= known, (name, rest)
    assert {name for name, _ in lines} == set(COMMANDS)


def test_options_of_the_readmes_tables() -> None:
    """`sweep/run.py` has each option of README's table, and README tells of each that it has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| option of `sweep/run.py`") :].split("\n\n")[0]
    options = {option.lstrip("-") for action in run_parser()._actions for option in action.option_strings}
    assert set(OPTION.findall(table)) == options - {"h", "help", "verbose"}


def test_the_readmes_study_file(tmp_path: Path) -> None:
    """It can be read as it stands."""
    blocks = dict(BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    (tmp_path / "study.toml").write_text(blocks["toml"], encoding="utf-8")
    assert load_study(tmp_path / "study.toml").name == "sn7"
