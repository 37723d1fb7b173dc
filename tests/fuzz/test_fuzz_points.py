"""Damaged landmark files: refused or read, quickly, in little memory, and never by an error of somebody else."""

from __future__ import annotations

import json
import sys

import pytest
from harness import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of time and memory are those of Linux")

READER = "point_readers:landmarks"

_FCSV = """# Markups fiducial file version = 5.6
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
"""
_MARKUP = {
    "type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": ["mm", "UCUM", "millimeter"],
    "controlPoints": [
        {"id": "1", "label": "F-1", "position": [-12.5, 30.25, -45.125], "positionStatus": "defined"},
        {"id": "2", "label": "Läsion", "position": "", "positionStatus": "undefined"},
    ],
}  # fmt: skip

_TABLE = """label,l,p,s,defined,selected,visible,locked,description
A,-10,-20,30,true,1,1,0,
B,0,0,0,false,1,1,0,x
"""
_OWN = """# meddift points; version=1; space=voxel1; unit=voxel
# a comment
label,x,y,z,similarity
A,10,20,30,0.9
B,,,,
"""
_OUTPUT = (
    "Point\t0\t; InputIndex = [ 1 2 3 ]\t; InputPoint = [ 1.0 2.0 3.0 ]\t; OutputIndexFixed = [ 4 5 6 ]\t; "
    "OutputPoint = [ -10.000000 -20.000000 30.000000 ]\t; Deformation = [ 0 0 0 ]\n"
)

SEEDS = {
    "slicer.mrk.json": json.dumps({"@schema": "x", "markups": [_MARKUP, _MARKUP]}, ensure_ascii=False),
    "slicer.fcsv": _FCSV + '1,-12.5,30.25,-45.125,0,0,0,1,1,1,0,"F,1",left,,2,0\n2,0,0,0,0,0,0,1,1,1,0,F-2,,,0,0\n',
    "slicer3.fcsv": "# Fiducial List file F.fcsv\n# columns = label,x,y,z,sel,vis\nA,10,20,30,1,1\nB,1.5,2,3,1,0\n",
    "table.csv": _TABLE,
    "table.tsv": "name\tr\ta\ts\tgrade\nA\t10\t20\t30\tII\n\t\t\t\t\nB\t1\t2\t3\tI\n",
    "ants.csv": "x,y,z,t,label,comment\n-12.5,30.25,-45.125,0,A,here\n,,,,,\n1,2,3,0,B,\n",
    "own.csv": _OWN,
    "elastix.txt": "point\n2\n-12.5 30.25 -45.125\n1e1 2 3\n",
    "index.pts": "index\n2\n1 2 3\n4 5 6\n",
    "outputpoints.txt": _OUTPUT * 2,
    "learn2reg.csv": "1.5,2.5,3.5\n,,\n4,5,6\n",
    "dirlab.txt": "115 309 32\n125 212 20\n",
}

TOKENS = tuple(
    b"x,y,z,t l,p,s r,a,s label name defined true false NaN inf point index OutputPoint space= version= unit= "
    b"CoordinateSystem columns controlPoints position positionStatus coordinateUnits um RAS LPS voxel1 ,,,".split()
)


def _seeds() -> dict[str, bytes]:
    return {name: text.encode() for name, text in SEEDS.items()}


def test_some_damaged_files() -> None:
    assert fuzz(READER, _seeds(), count=2_500, tokens=TOKENS) == []


@pytest.mark.slow
def test_many_damaged_files() -> None:
    assert fuzz(READER, _seeds(), count=400_000, first=1_000_000, tokens=TOKENS) == []
