"""What README and docs tell people to type exists, and what they link to is there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meddift.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "src").rglob("*.md"))


@cache
def help_of(command: tuple[str, ...]) -> str:
    """What `meddift COMMAND --help` prints; empty where there is no such command."""
    result = CliRunner().invoke(app, [*command, "--help"])
    return result.stdout if result.exit_code == 0 else ""


def commands_in(page: Path) -> list[str]:
    """What stands after `meddift` in code, up to the end of the line or of the code."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^(?: {4,}|\t)(?:\$ )?meddift ([^\n#]+)", text, flags=re.M)
    fenced = "\n".join(re.findall(r"^```(?:console|bash|sh)?\n(.*?)^```", text, flags=re.M | re.S))
    lines += re.findall(r"^(?:\$ )?meddift ([^\n#]+)", fenced, flags=re.M)
    return lines + re.findall(r"`meddift ([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    for line in commands_in(page):
        words = line.split()
        if not re.fullmatch(r"[a-z]+(-[a-z]+)?", words[0]):  # options of the whole program, and printed results
            continue
        name = tuple(words[:1])
        assert help_of(name), f"{page.name}: no command `meddift {words[0]}`"
        if "\nCommands:" in help_of(name) and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            name = tuple(words[:2])
            assert help_of(name), f"{page.name}: no command `meddift {' '.join(name)}`"
        elif words[0] == "cohort":  # short for `cohort run`
            name = ("cohort", "run")
        known = set(re.findall(r"--[a-z0-9-]+", help_of(name)))
        for option in re.findall(r"(?<![\w-])--[a-z0-9-]+", line):
            assert option in known, f"{page.name}: `meddift {' '.join(name)}` has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
