"""What pools promise adds up, whatever happens."""

from hypothesis import given
from hypothesis import strategies as st

from gespann.array.model.records import StoragePool, Volume
from gespann.array.model.sizes import GB, GRANULE_BYTES, MB, real_size
from gespann.array.model.space import FileSystem, min_reserve, pool_spaces, reserve


def volume(number: int, mb: int, thin: bool, percent: int = 10, pool_id: int = 1) -> Volume:
    return Volume(
        id=number,
        name=f"v{number}",
        naa=f"{number}",
        target_name=f"t{number}",
        pool_id=pool_id,
        asked_bytes=mb * MB,
        size_bytes=real_size(mb * MB),
        thin=thin,
        thin_min_reserve=percent,
    )


def test_minimum_reserve_is_whole_pages():
    assert min_reserve(volume(1, 1024, True)) == 105 * MB  # as the array shows it for 1GB


@given(st.integers(1, 15 * 1024 * 1024), st.booleans(), st.integers(1, 100), st.floats(0, 1.01))
def test_reserve_lies_between_use_and_size(mb, thin, percent, used):
    one = volume(1, mb, thin, percent)
    allocated = int(one.size_bytes * used)
    reserved = reserve(one, allocated)
    assert reserved % GRANULE_BYTES == 0
    assert min(allocated, one.size_bytes) <= reserved <= one.size_bytes
    assert thin or reserved == one.size_bytes


volumes = st.lists(
    st.tuples(st.integers(1, 5000), st.booleans(), st.sampled_from([1, 2, 3]), st.floats(0, 1)), max_size=8
)


@given(volumes, st.integers(0, 5000))
def test_no_byte_is_promised_twice(drawn, capacity_mb):
    """Fill every pool to its promised free space with thick volumes: the file system can always take it."""
    pools = [
        StoragePool(id=1, name="default"),
        StoragePool(id=2, name="own", capacity_bytes=capacity_mb * MB),
        StoragePool(id=3, name="shares"),
    ]
    total = 100 * GB
    rows, allocated = [], {}
    for number, (mb, thin, pool_id, used) in enumerate(drawn):
        one = volume(number, mb, thin, pool_id=pool_id)
        free = spaces_of(pools, rows, allocated, disk(total, allocated))[pool_id].free_bytes
        if reserve(one, 0) <= free:
            rows.append(one)
            allocated[one.naa] = int(reserve(one, 0) * used) if thin else one.size_bytes
    spaces = spaces_of(pools, rows, allocated, disk(total, allocated))
    to_come = sum(max(0, reserve(one, allocated[one.naa]) - allocated[one.naa]) for one in rows)
    free = disk(total, allocated).free_bytes
    assert spaces[1].free_bytes + spaces[2].free_bytes + to_come <= free
    assert spaces[1].free_bytes == spaces[3].free_bytes
    assert spaces[2].free_bytes <= capacity_mb * MB


def disk(total: int, allocated: dict[str, int]) -> FileSystem:
    return FileSystem(total_bytes=total, free_bytes=total - sum(allocated.values()))


def spaces_of(pools, rows, allocated, file_system):
    """With nothing shared: a pool occupies what its volumes do."""
    used = {pool.name: sum(allocated[one.naa] for one in rows if one.pool_id == pool.id) for pool in pools}
    return pool_spaces(pools, rows, allocated, used, file_system)


def test_what_snapshots_keep_is_not_free_and_what_clones_share_is():
    own = StoragePool(id=2, name="own", capacity_bytes=10 * GB)
    rows = [volume(number, 1024, True, pool_id=2) for number in (1, 2)]
    allocated = {one.naa: 600 * MB for one in rows}

    def free_bytes(used: int) -> int:
        spaces = pool_spaces(
            [StoragePool(id=1, name="default"), own], rows, allocated, {"own": used}, disk(20 * GB, {})
        )
        return spaces[2].free_bytes

    assert free_bytes(1200 * MB) == 10 * GB - 1200 * MB  # each has its own
    assert free_bytes(600 * MB) == 10 * GB - 600 * MB  # one is a clone of the other
    assert free_bytes(3 * GB) == 7 * GB  # snapshots keep the rest
