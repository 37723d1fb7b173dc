"""Order of work: every scan once, before its cases; parts that make the whole."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meddift.cohort.cases import Case, Labels
from meddift.cohort.order import by_shared_scans, part
from meddift.cohort.schedule import Schedule

#: Others use the processors, too.
calm = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30)


def make(pairs):
    return [
        Case(f"c{k}", ("register",), Labels(f"c{k}"), {"fixed": f"s{a}", "moving": f"s{b}"})
        for k, (a, b) in enumerate(pairs)
    ]


@calm
@given(pairs, st.sets(st.integers(0, 9)), st.randoms())
def test_every_scan_once_before_its_cases_and_none_twice(pairs, bad, draw):
    cases = make(pairs)
    schedule = Schedule(cases)
    encoded, asked, over, lost, freed = set(), [], [], [], []
    flying = []
    while True:
        work = schedule.next()
        if work is not None:
            if isinstance(work, str):
                asked.append(work)
            else:
                assert set(work.scans) <= encoded
            flying.append(work)
            if draw.random() < 0.6:
                continue
        if not flying:
            break
        done = flying.pop(draw.randrange(len(flying)))
        if isinstance(done, Case):
            if draw.random() < 0.2:
                schedule.again(done)
                continue
            over.append(done.name)
            freed += schedule.finished(done)
        elif int(done[1:]) in bad:
            for case in schedule.lost(done):
                lost.append(case.name)
                freed += schedule.finished(case)
        else:
            encoded.add(done)
            schedule.encoded(done)
    assert len(asked) == len(set(asked))
    assert sorted(over + lost) == sorted(case.name for case in cases)
    assert set(lost) == {c.name for c in cases if {int(s[1:]) for s in c.scans} & bad}
    assert sorted(freed) == sorted({scan for case in cases for scan in case.scans})


@calm
@given(pairs, st.integers(1, 7))
def test_the_order_has_every_case_once_and_parts_make_the_whole(pairs, count):
    cases = make(pairs)
    ordered = by_shared_scans(cases)
    assert sorted(c.name for c in ordered) == sorted(c.name for c in cases)
    parts = [part(ordered, number, count) for number in range(1, count + 1)]
    assert [c for p in parts for c in p] == ordered
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_cases_of_one_patient_stand_together():
    mixed = [(patient * 10 + a, patient * 10 + b) for a, b in ((0, 1), (1, 2), (2, 3)) for patient in range(5)]
    patients = [int(case.scans[0][1:]) // 10 for case in by_shared_scans(make(mixed))]
    assert patients == sorted(patients)


def test_few_scans_wait_for_their_last_case():
    """Of a thousand scans in a chain, the schedule never keeps more than a handful."""
    schedule = Schedule(by_shared_scans(make([(k, k + 1) for k in range(1000)])))
    kept, most = set(), 0
    while (work := schedule.next()) is not None:
        if isinstance(work, str):
            kept.add(work)
            schedule.encoded(work)
        else:
            kept -= set(schedule.finished(work))
        most = max(most, len(kept))
    assert not kept
    assert most <= 3
