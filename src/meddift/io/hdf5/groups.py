"""Groups of an HDF5 file: the names of their members."""

from __future__ import annotations

from collections.abc import Iterator

from meddift.io.hdf5.frame import LINK, LINK_INFO, LONGEST_NAME, NOWHERE, SYMBOL_TABLE, Bytes, Frame


def members(frame: Frame, address: int) -> dict[str, int]:
    """The objects of a group: name -> address."""
    messages = frame.messages(address)
    found: dict[str, int] = {}
    for kind, body in messages:
        if kind == SYMBOL_TABLE:
            tree, heap = body.u64(), body.u64()
            pairs = _symbols(frame, tree, heap)
        elif kind == LINK:
            pairs = iter([_link(frame, body)])
        elif kind == LINK_INFO:
            pairs = _dense(frame, body)
        else:
            continue
        for name, place in pairs:
            if name in found:
                raise frame.damaged(f"the name {name[:80]!r} stands twice in a group")
            found[name] = place
    return found


def _symbols(frame: Frame, tree: int, heap: int) -> Iterator[tuple[str, int]]:
    """Names and addresses of an old-style group."""
    raw = Bytes(frame.read(heap, 32), frame)
    if raw.take(4) != b"HEAP":
        raise frame.damaged("the names of a group are not there")
    raw.take(4)
    size, _, names = raw.u64(), raw.u64(), raw.u64()
    for node in frame.leaves(tree, 0, 8):
        raw = Bytes(frame.read(node.child, 8), frame)
        if raw.take(4) != b"SNOD":
            raise frame.damaged("the members of a group are not there")
        raw.take(2)
        entries = Bytes(frame.read(node.child + 8, 40 * raw.u16()), frame)
        while entries.left:
            offset, place = entries.u64(), entries.u64()
            entries.take(24)
            if offset >= size:
                raise frame.damaged("a name in a group is not there")
            name = frame.read(names + offset, min(size - offset, LONGEST_NAME)).split(b"\0")[0]
            yield name.decode("utf-8", errors="replace"), place


def _link(frame: Frame, raw: Bytes) -> tuple[str, int]:
    """One member of a new-style group."""
    raw.u8()
    flags = raw.u8()
    if flags & 8 and raw.u8():
        raise frame.foreign("links that are not hard")
    raw.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = raw.take(int.from_bytes(raw.take(1 << (flags & 3)), "little"))
    return name.decode("utf-8", errors="replace"), raw.u64()


def _dense(frame: Frame, raw: Bytes) -> Iterator[tuple[str, int]]:
    """Members of a new-style group with more than some eight of them: a heap of links, and an index of it."""
    raw.u8()
    raw.take(8 if raw.u8() & 1 else 0)
    heap, index = raw.u64(), raw.u64()
    if heap == NOWHERE:
        return
    blocks = _blocks(frame, heap)
    for identifier in _identifiers(frame, index):
        offset, length = int.from_bytes(identifier[1:5], "little"), int.from_bytes(identifier[5:7], "little")
        place = next((at + offset - first for first, end, at in blocks if first <= offset < end), None)
        if identifier[0] or place is None:
            raise frame.damaged("a member of a group is not there")
        yield _link(frame, Bytes(frame.read(place, length), frame))


def _identifiers(frame: Frame, address: int) -> list[bytes]:
    """Where the links of a group stand in its heap: the records of its index of names (a B-tree of version 2)."""
    raw = frame.checked(address, 38, b"BTHD")
    raw.take(1)
    kind, _, record, depth = raw.u8(), raw.u32(), raw.u16(), raw.u16()
    raw.take(2)
    root, count = raw.u64(), raw.u16()
    if kind != 5 or record != 11:
        raise frame.damaged("the index of a group is something else")
    if depth:
        raise frame.foreign("groups of more than some 45 members")
    raw = frame.checked(root, 6 + record * count + 4, b"BTLF")
    raw.take(2)
    return [raw.take(record)[4:] for _ in range(count)]


def _blocks(frame: Frame, address: int) -> list[tuple[int, int, int]]:
    """The pieces of a heap of links: first and last position in the heap, address in the file."""
    raw = frame.checked(address, 146, b"FRHP")
    raw.take(1)
    length, filters = raw.u16(), raw.u16()
    raw.take(101)
    width, size, largest, bits = raw.u16(), raw.u64(), raw.u64(), raw.u16()
    raw.u16()
    root, rows = raw.u64(), raw.u16()
    if length != 7 or filters or bits != 32:
        raise frame.foreign("a heap of another form")
    if not rows:
        return [(0, size, root)]
    if rows > 16 or not 1 <= width <= 64 or size << max(rows - 2, 0) > largest:
        raise frame.foreign("groups of very many members")
    raw = frame.checked(root, 17 + 8 * rows * width + 4, b"FHIB")
    raw.take(13)
    found, first = [], 0
    for row in range(rows):
        step = size << max(row - 1, 0)
        for _ in range(width):
            place = raw.u64()
            if place != NOWHERE:
                found.append((first, first + step, place))
            first += step
    return found
