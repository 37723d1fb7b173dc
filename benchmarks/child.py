"""One row in a process of its own: `python child.py TASK '{"json": ...}'` prints one line of JSON in the end."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

#: Task -> module and function; only that module is loaded.
TASKS = {
    "machine": "measuring.machine",
    "search.ours": "searching.ours",
    "search.reference": "searching.reference",
    "search.chunked": "searching.chunked",
    "search.faiss": "searching.faiss",
    "search.one": "searching.one_point",
    "dense.ours": "dense.ours",
    "dense.shifts": "dense.shifts",
    "network.builtin": "networks.builtin",
    "network.encoder": "networks.encoder",
    "network.unet": "networks.unet",
    "command.match": "commands.match",
    "register.pair": "following.register",
    "track.patient": "following.track",
    "device.pair": "device.pair",
    "device.maisi": "device.maisi",
    "viewer.page": "viewing.page",
}


def run(task: str, told: dict[str, Any]) -> dict[str, Any]:
    """Do a task."""
    module, function = TASKS[task].split(".")
    result: dict[str, Any] = getattr(importlib.import_module(module), function)(told)
    return result


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], json.loads(sys.argv[2]))))
