"""`meddift evaluate` and `meddift datasets` as people call them."""

from __future__ import annotations

import html
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_pairs import write_pairs
from typer.testing import CliRunner, Result

from meddift.cli.app import app
from meddift_lab.running.tables import VerdictRow


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_writes_tables_and_a_page(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 2)
    arguments = ["evaluate", "run", "--data", pairs, "--out", tmp_path / "run", "--case", "case-1", "--json"]
    done = call(*arguments, "--method", "identity", "--method", "translation")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [row["method"] for row in content["methods"]] == ["identity", "translation"]
    assert content["methods"][1]["mean_mm"] == pytest.approx(1.0, abs=1e-6)
    page = Path(content["report"]).read_text(encoding="utf-8")
    assert "Finding the same point in two scans" in page
    assert "case-1" in page
    assert "<svg" in page
    assert "Points of this kind are moved along with the grid." in page
    # The page says how to repeat it, and what it says can be pasted.
    block = html.unescape(page.split("<h2>To repeat it</h2>")[1].split("<pre>")[1].split("</pre>")[0])
    words = shlex.split(block)
    assert words[:2] == ["meddift", "evaluate"]
    assert str(pairs) in words
    repeated = call(*words[1:], "--json")
    assert repeated.exit_code == 0, repeated.output
    assert json.loads(repeated.stdout)["methods"] == content["methods"]
    for name in ("methods.csv", "cases.csv", "timings.csv", "comparisons.csv", "evaluation.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    again = call("evaluate", "report", "--out", tmp_path / "run", "--quiet")
    assert (again.exit_code, again.stdout) == (0, "")
    assert Path(content["report"]).read_text(encoding="utf-8") == page


def test_verdicts_are_counted_against_the_truth() -> None:
    """Hand-counted: five of six points are called ok, one of them is 7 mm off; one that is near is held back."""
    distances = np.array([0.5, 1.0, 7.0, 4.9, 2.0, 3.0])
    ok = np.array([True, True, True, True, True, False])
    row = SimpleNamespace(distances=distances[:4], ok=ok[:4]), SimpleNamespace(distances=distances[4:], ok=ok[4:])
    found = VerdictRow.of("a method", row)  # type: ignore[arg-type]
    assert found == VerdictRow("a method", n=6, ok=5, ok_beyond=1, ok_max_mm=7.0, held_back=1)
    assert VerdictRow.of("another", [SimpleNamespace(distances=distances, ok=None)]) is None  # type: ignore[list-item]


def test_a_failed_method_makes_the_exit_code_3(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 1)
    arguments = ["evaluate", "run", "--data", pairs, "--out", tmp_path / "run", "--quiet", "--timeout", "0.01"]
    assert call(*arguments, "--method", "identity").exit_code == 3
    assert "stopped after 0.01 s" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["evaluate", "run", "--data", "lungs", "--out", "run"], 2, "is no data set"),
        (["evaluate", "run", "--data", "pairs:nowhere.csv", "--out", "run"], 1, "there is no nowhere.csv"),
        (
            ["evaluate", "run", "-d", "phantom-breathing", "-o", "run", "--method", "magic"],
            2,
            "no method magic",
        ),
        (["evaluate", "run", "-d", "phantom-breathing", "-o", "run", "--case", "x"], 2, "there is no case x"),
        (
            ["evaluate", "ablate", "-d", "phantom-breathing", "-o", "run", "--base", "x"],
            2,
            "starts from default",
        ),
        (
            ["evaluate", "ablate", "-d", "phantom-breathing", "-o", "run", "--sweep", "x"],
            2,
            "there is no sweep x",
        ),
        (["evaluate", "report", "--out", "run"], 1, "holds no results"),
        (["datasets", "fetch", "phantom-breathing"], 2, "nothing has to be downloaded"),
        (["datasets", "fetch", "lungs"], 2, "there is no data set 'lungs'"),
    ],
)
def test_nonsense_is_one_sentence(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == code, done.output
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("run/results/*"))


def test_what_there_is_is_listed() -> None:
    methods = json.loads(call("evaluate", "methods", "--json").stdout)["methods"]
    assert {"identity", "convexadam", "ants-syn", "unigradicon", "meddift"} <= {row["name"] for row in methods}
    assert "convexadam" in call("evaluate", "methods").stdout
    known = json.loads(call("datasets", "list", "--json").stdout)["data_sets"]
    assert {"phantom-breathing", "lungct", "dirlab-copd"} <= {row["name"] for row in known}
    assert "CC BY 4.0" in call("datasets", "list").stdout
