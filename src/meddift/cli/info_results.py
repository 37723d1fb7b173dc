"""Describe results of meddift and tables that it reads, recognised by their content."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from meddift.errors import MeddiftError

#: Largest size of a file that is read, bytes; results and tables have a few MB at most.
_LARGEST = 1 << 28

Facts = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class _Kind:
    """A kind of file.

    Attributes:
        what: Description of the kind.
        needs: Keys or columns that identify the kind; the first kind that fits is used.
        facts: Function that extracts main facts from the content of a JSON file or the rows of a table.
    """

    what: str
    needs: frozenset[str]
    facts: Facts


def describe_results(path: Path) -> dict[str, Any]:
    """Describe a JSON file, a table or a folder of results.

    Args:
        path: A file or folder for which `is_results` is true.

    Returns:
        Dictionary, ready for JSON: `path`, `format`, `bytes`, the description `what`, and main facts by name.

    Raises:
        MeddiftError: if the file is damaged.
    """
    inner = _marker(path) or path
    form = _format(inner) if inner is path else f"folder with {inner.name}"
    return {"path": str(path), "format": form, "bytes": inner.stat().st_size, **_described(inner)}


def is_results(path: Path) -> bool:
    """Whether a path is a JSON file without points, a table, or a results folder of meddift."""
    if path.is_dir():
        return _marker(path) is not None
    name = path.name.lower()
    if name.endswith((".csv", ".tsv", ".txt")):
        columns = _columns(path)
        coordinates = any(set(axes) <= {name.lower() for name in columns} for axes in ("xyz", "lps", "ras"))
        return not coordinates and any(kind.needs <= columns for kind in _TABLES)
    if name.endswith((".json", ".jsonl")):
        content = _read_json(path)
        return not (isinstance(content, dict) and isinstance(content.get("markups"), list))
    return False


def _marker(folder: Path) -> Path | None:
    """The file that identifies a folder of results; None if there is none."""
    return next((folder / name for name in _MARKERS if (folder / name).is_file()), None)


def _format(path: Path) -> str:
    return "JSON" if path.name.lower().endswith((".json", ".jsonl")) else "table"


def _described(path: Path) -> dict[str, Any]:
    """Description and main facts of a file."""
    if _format(path) == "table":
        columns, rows = _columns(path), _rows(path)
        kind = next(kind for kind in _TABLES if kind.needs <= columns)
        return {"what": kind.what, "rows": len(rows), **kind.facts(rows)}
    content = _read_json(path)
    if isinstance(content, list) and path.name == "commands.json":
        return {"what": "commands that filled the folder of an evaluation", "commands": [str(one) for one in content]}
    if isinstance(content, list) and path.name.endswith(".jsonl"):
        return {"what": "manifest of a cohort: a line for each case that was finished", **_states(content)}
    if isinstance(content, dict):
        for kind in _JSON:
            if kind.needs <= content.keys():
                try:
                    return {"what": kind.what, **kind.facts(content)}
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise MeddiftError(f"{path} is damaged: it should be {kind.what} ({error})") from error
        if content and all(isinstance(one, dict) and "Description" in one for one in content.values()):
            return {"what": "descriptions of the columns of a table", "columns": list(content)}
    keys = {"keys": list(content)[:12]} if isinstance(content, dict) else {"entries": _count(content)}
    return {"what": "JSON of no kind that meddift knows", **keys}


def _read_json(path: Path) -> Any:
    """The content of a JSON file, or the list of the lines of a `.jsonl`.

    Raises:
        MeddiftError: if the file cannot be read, or is not JSON.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise MeddiftError(f"{path} cannot be read: {error.strerror or error}") from error
    if status.st_size > _LARGEST:
        raise MeddiftError(f"{path} is larger than 256 MiB, which no results are")
    return _parsed(path, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _parsed(path: Path, changed: int) -> Any:
    """Parsed content of a file, cached because it is read twice: for its kind and for its facts.

    Args:
        path: The file.
        changed: Modification time, ns; a changed file is read again.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.name.lower().endswith(".jsonl"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except OSError as error:
        raise MeddiftError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise MeddiftError(f"{path} is no JSON, whatever its name says, or damaged: {reason}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    from meddift.tracking.tables import read_table

    try:
        return read_table(path)
    except csv.Error as error:
        raise MeddiftError(f"{path} is no table: {error}; save it as CSV in UTF-8") from error


def _columns(path: Path) -> frozenset[str]:
    """Column names of a table, from its first line that is no comment; empty if the file is no table."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            for _ in range(50):
                line = stream.readline(10_000)
                if line.strip() and not line.startswith("#"):
                    return frozenset(name.strip(' "\n\r') for name in line.split("\t" if "\t" in line else ","))
    except OSError:
        pass
    return frozenset()


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 1


def _tally(values: Iterable[Any]) -> str:
    """Counts of values as text, such as "3 ok, 1 outside"."""
    return ", ".join(f"{times} {value}" for value, times in Counter(map(str, values)).items())


def _states(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    latest = {str(row["case"]): row.get("state", "unknown") for row in rows if "case" in row}
    return {"cases": len(latest), "states": _tally(latest.values())}


def _points(content: Mapping[str, Any]) -> dict[str, Any]:
    """Number of points, counts of verdicts, and the model that found them."""
    points = content.get("points", [])
    told: dict[str, Any] = {"points": len(points)} if points else {}
    verdicts = [point["verdict"] for point in points if isinstance(point, dict) and point.get("verdict")]
    if verdicts:
        told["verdicts"] = _tally(verdicts)
    model = (content.get("provenance") or {}).get("model")
    return told | ({} if model is None else {"model": model["name"] if isinstance(model, dict) else model})


def _sidecar(content: Mapping[str, Any]) -> dict[str, Any]:
    direction = content["direction"]
    shapes = {f"{name}_scan": " x ".join(map(str, content[name]["shape"])) + " voxels" for name in ("fixed", "moving")}
    return {"file": content.get("file", {}).get("name"), "points": direction["points"], "images": direction["images"],
            **shapes}  # fmt: skip


def _follow_up(content: Mapping[str, Any]) -> dict[str, Any]:
    states = [row["state"] for lesion in content["lesions"] for row in lesion["observations"]]
    names = [str(point["name"]) for point in content["time_points"]]
    return {"patient": content.get("subject"), "time_points": names, "lesions": _count(content["lesions"]),
            "states": _tally(states)}  # fmt: skip


def _evaluation(content: Mapping[str, Any]) -> dict[str, Any]:
    methods = dict.fromkeys(str(row["method"]) for row in content["methods"])
    cases = dict.fromkeys(str(row["case"]) for row in content["cases"])
    return {"methods": list(methods), "cases": len(cases)}


def _seen(name: str, column: str) -> Facts:
    """Function that counts the different values of a column."""
    return lambda rows: {name: len({row[column] for row in rows if row.get(column)})}


def _lesion_rows(rows: list[dict[str, str]]) -> dict[str, Any]:
    return {**_seen("lesions", "lesion_id")(rows), "states": _tally(row["state"] for row in rows)}


def _chosen(*names: str) -> Facts:
    """Function that returns entries unchanged."""
    return lambda content: {name: content[name] for name in names if isinstance(content.get(name), str | int | float)}


_JSON = (
    _Kind("the description of a transform, which stands beside it (.transform.json)",
          frozenset({"direction", "file_space", "fixed", "moving"}), _sidecar),
    _Kind("results of `meddift register --json`", frozenset({"provenance", "folding", "stages"}), _points),
    _Kind("results of `meddift match --json`", frozenset({"points", "timing", "provenance"}), _points),
    _Kind("the list of points of `meddift view`", frozenset({"points", "scans", "version"}), _points),
    _Kind("points that were found (`Matches.save`), world RAS mm", frozenset({"points", "space", "unit"}), _points),
    _Kind("results of `meddift warp --json`", frozenset({"direction"}), _chosen("direction")),
    _Kind("lesions of a patient over time, by `meddift track`",
          frozenset({"lesions", "time_points", "mapping"}), _follow_up),
    _Kind("tables of an evaluation, by `meddift evaluate`",
          frozenset({"methods", "cases", "provenance"}), _evaluation),
    _Kind("a case of an evaluation", frozenset({"data_set", "points_ras_mm", "digest"}), _chosen("name", "data_set")),
    _Kind("what one method found in a case of an evaluation",
          frozenset({"method", "case_digest"}), _chosen("method", "case", "status")),
    _Kind("what a cohort shall do, by `meddift cohort`",
          frozenset({"layout", "settings", "source"}), _chosen("source", "cases")),
    _Kind("the result of a case of a cohort", frozenset({"case", "key", "state"}), _chosen("case", "state", "reason")),
    _Kind("the description of a BIDS data set", frozenset({"Name", "BIDSVersion"}), _chosen("Name", "BIDSVersion")),
)  # fmt: skip

_TABLES = (
    _Kind("lesions of a patient over time, by `meddift track`",
          frozenset({"lesion_id", "timepoint", "state"}), _lesion_rows),
    _Kind("sizes and response by time point, by `meddift track`",
          frozenset({"timepoint", "sum_mm", "category"}), _seen("time_points", "timepoint")),
    _Kind("growth of lesions between time points, by `meddift track`",
          frozenset({"lesion_id", "from", "to"}), _seen("lesions", "lesion_id")),
    _Kind("cases of a cohort, by `meddift cohort`", frozenset({"case", "state", "flags"}), _states),
    _Kind("points of a pair in a cohort, world RAS mm", frozenset({"label", "fixed_x", "moving_x", "verdict"}),
          lambda rows: {"verdicts": _tally(row["verdict"] for row in rows)}),
    _Kind("methods of an evaluation, compared", frozenset({"kind", "method", "against"}), _seen("methods", "method")),
    _Kind("methods of an evaluation, case by case", frozenset({"method", "case"}), _seen("cases", "case")),
    _Kind("methods of an evaluation", frozenset({"kind", "method"}), _seen("methods", "method")),
    _Kind("pairs of scans, for `meddift cohort` or `meddift evaluate`",
          frozenset({"fixed", "moving"}), _chosen()),
    _Kind("scans of patients, for `meddift cohort`",
          frozenset({"subject", "scan", "date"}), _seen("patients", "subject")),
    _Kind("scans of a patient, for `meddift track`", frozenset({"scan", "date"}), _chosen()),
)  # fmt: skip

#: Files that identify a folder of results.
_MARKERS = ("lesions.json", "cohort.tsv", "plan.json", "evaluation.json", "points.json", "commands.json")
