"""One row in a process of its own: `python child.py TASK '{"json": ...}'` prints one line of JSON in the end."""

from __future__ import annotations

import json
import sys

import commands
import dense
import device
import following
import measuring
import networks
import searching
import viewing

TASKS = {
    "machine": measuring.machine,
    "search.ours": searching.ours,
    "search.reference": searching.reference,
    "search.chunked": searching.chunked,
    "search.faiss": searching.faiss,
    "search.one": searching.one_point,
    "dense.ours": dense.ours,
    "dense.shifts": dense.shifts,
    "network.builtin": networks.builtin,
    "network.encoder": networks.encoder,
    "network.unet": networks.unet,
    "command.match": commands.match,
    "register.pair": following.register,
    "track.patient": following.track,
    "device.pair": device.pair,
    "viewer.page": viewing.page,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](json.loads(sys.argv[2]))))
