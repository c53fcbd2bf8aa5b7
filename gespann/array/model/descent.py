"""What a volume and its snapshots have from whom, so that what all of them occupy can be counted exactly. Pure.

Each has bases: those of an earlier position that it may share blocks with. The volume comes last. A new snapshot takes
over the volume's bases and becomes its only one; after a restore the snapshot restored from is the only one. So far it
is a tree, and a block that several share is in neighbours of it. Where one goes that was a neighbour of several, those
become neighbours of each other, in the order of their positions: whoever came from it gets its bases and the others
before.

Kept this way the bases of each are all neighbours of each other (a perfect elimination order of a chordal graph). Then
a block is new, that is in none of the bases, in exactly one of all that share it: its first. So the sum of what each
has beyond its bases counts every block once.
"""

from collections.abc import Iterable, Mapping

VOLUME = 0  # stands for the volume itself

Bases = dict[int, list[int]]  # by snapshot in the order of their positions, the volume last


def after_snapshot(bases: Mapping[int, list[int]], new: int) -> Bases:
    """``new`` has what the volume has."""
    return {**_without_volume(bases), new: bases[VOLUME], VOLUME: [new]}


def after_restore(bases: Mapping[int, list[int]], source: int) -> Bases:
    return {**bases, VOLUME: [source]}


def after_removal(bases: Mapping[int, list[int]], gone: int) -> Bases:
    own, children = bases[gone], [one for one in bases if gone in bases[one]]
    after: Bases = {}
    for one, old in bases.items():
        if one == gone:
            continue
        if one in children:
            earlier = children[: children.index(one)]
            after[one] = _sorted(bases, {*own, *earlier})
        else:
            after[one] = old
    return after


def after_opening(bases: Mapping[int, list[int]], opened: int) -> Bases:
    """Somebody may write to ``opened``: what its neighbours share they need no longer share with it. It goes, and comes
    back in the last position."""
    neighbours = {*bases[opened], *(one for one in bases if opened in bases[one])}
    rest = after_removal(bases, opened)
    volume = rest[VOLUME] + ([opened] if VOLUME in neighbours else [])
    own = _sorted(bases, neighbours - {VOLUME})
    return {**_without_volume(rest), opened: own, VOLUME: volume}


def _without_volume(bases: Mapping[int, list[int]]) -> Bases:
    return {one: own for one, own in bases.items() if one != VOLUME}


def _sorted(bases: Mapping[int, list[int]], some: Iterable[int]) -> list[int]:
    wanted = set(some)
    return [one for one in bases if one in wanted]
