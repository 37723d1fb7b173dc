"""Files of tests have names of their own: pytest imports two of one name as one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def test_no_two_files_of_tests_share_a_name() -> None:
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
