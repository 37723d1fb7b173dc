"""`meddift info` on results of meddift and on tables that it reads: what they are, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_scans import Case

Run = Any


def test_results_of_match_and_register(case: Case, run: Run) -> None:
    (case.folder / "match.json").write_text(run(case.arguments("--json")).stdout)
    told = run(["info", case.folder / "match.json", "--json"]).json
    assert told["what"] == "results of `meddift match --json`"
    assert (told["points"], told["verdicts"], told["model"]) == (4, "4 ok", "builtin")
    arguments = ["register", case.fixed, case.moving, "--affine", case.folder / "A.tfm", "--levels", "mind"]
    assert run([*arguments, "--prior", "identity", "--no-store"]).code == 0
    words = run(["info", case.folder / "A.transform.json"]).stdout.splitlines()
    assert "what: the description of a transform, which stands beside it (.transform.json)" in words
    assert {"file: A.tfm", "points: fixed to moving", "fixed scan: 40 x 40 x 40 voxels"} <= set(words)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("lesions.tsv", "# note\nlesion_id\ttimepoint\tstate\n1\tT0\tbaseline\n1\tT1\tmatched\n2\tT1\tnew\n",
         {"what": "lesions of a patient over time, by `meddift track`", "rows": 3, "lesions": 2,
          "states": "1 baseline, 1 matched, 1 new"}),
        ("manifest.jsonl", '{"case": "a", "state": "failed"}\n{"scan": 1}\n{"case": "a", "state": "done"}\n',
         {"cases": 1, "states": "1 done"}),
        ("patients.csv", "subject,scan,date\np,a.nii,2024-01-02\np,b.nii,2024-02-03\n", {"patients": 1, "rows": 2}),
        ("pairs.csv", "case,fixed,moving\n1,a.nii,b.nii\n", {"rows": 1}),
        ("other.json", '{"a": 1, "b": [2]}', {"what": "JSON of no kind that meddift knows", "keys": ["a", "b"]}),
        ("list.json", "[1, 2, 3]", {"what": "JSON of no kind that meddift knows", "entries": 3}),
    ],
)  # fmt: skip
def test_files(name: str, text: str, expected: dict[str, Any], tmp_path: Path, run: Run) -> None:
    (tmp_path / name).write_text(text)
    outcome = run(["info", tmp_path / name, "--json"])
    assert outcome.code == 0, outcome.stderr
    assert expected.items() <= outcome.json.items()


def test_a_folder_is_known_by_its_main_file(tmp_path: Path, run: Run) -> None:
    seen = [{"state": "baseline"}, {"state": "disappeared"}]
    content = {"subject": "p\x1b[31m", "lesions": [{"observations": seen}], "mapping": {},
               "time_points": [{"name": "T0"}, {"name": "T1"}]}  # fmt: skip
    (tmp_path / "lesions.json").write_text(json.dumps(content))
    words = run(["info", tmp_path]).stdout
    assert "format: folder with lesions.json" in words
    assert "time points: T0, T1" in words
    assert "states: 1 baseline, 1 disappeared" in words
    assert "\x1b" not in words


def test_points_stay_points(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.csv").write_text(
        "# meddift points; version=1; space=RAS; unit=mm\nlabel,x,y,z,fixed,moving\nA,1,2,3,4,5\n"
    )
    (tmp_path / "b.json").write_text('{"markups": [{"controlPoints": [{"position": [1, 2, 3]}]}]}')
    for name in ("a.csv", "b.json"):
        assert "points: 1" in run(["info", tmp_path / name]).stdout


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"lesions": 1, "time_points": 2, "mapping": 3}', "\x00"])
def test_damaged(text: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "lesions.json").write_text(text)
    outcome = run(["info", tmp_path / "lesions.json"])
    assert outcome.code == 1
    assert "damaged" in outcome.stderr


def test_a_file_is_read_once(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"something": 1}')
    read = Path.read_text
    asked: list[str] = []
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **n: asked.append(path.name) or read(path, *a, **n))
    assert run(["info", file, "--json"]).json["keys"] == ["something"]
    assert asked.count("results.json") == 1
    # Written anew, it is read anew.
    file.write_text('{"something else": 1}')
    assert run(["info", file, "--json"]).json["keys"] == ["something else"]
