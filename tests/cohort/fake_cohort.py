"""Cohorts of scans that are a few letters, for the fake engine."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.fake_engine import asked
from meddift.cohort.plan import Plan


@dataclass
class FakeCohort:
    folder: Path
    cases: int = 40
    scans: int = 12

    def __post_init__(self):
        self.table = self.folder / "pairs.csv"
        if self.table.exists():  # scans written anew have another time, for which failed cases are tried again
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        draw = random.Random(0)
        for number in range(self.scans):
            (self.folder / f"scan{number}.nii").write_text("broken" if number == 3 else f"scan {number}")
        lines = ["case,fixed,moving"]
        for number in range(self.cases):
            pair = draw.sample(range(self.scans), 2)
            lines.append(f"c{number:04d},scan{pair[0]}.nii,scan{pair[1]}.nii")
        self.table.write_text("\n".join(lines) + "\n")

    def plan(self, out: str, **changes) -> Plan:
        notes = self.folder / f"{out}-notes"
        notes.mkdir(exist_ok=True)
        told = {"notes": str(notes), **changes.pop("told", {})}
        plan = Plan(self.table, self.folder / out, matcher=told, engine="cohort.fake_engine:make", workers=2)
        return replace(plan, **changes)

    def asked(self, out: str):
        return asked(self.folder / f"{out}-notes")
