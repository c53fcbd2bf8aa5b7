"""Where two states of a volume differ: a look at the engine's maps, which reads no data."""

from gespann.array.data_plane.link import DataPlane
from gespann.array.model.records import Snapshot, Volume
from gespann.array.model.refusals import Conflict, Failed
from gespann.array.operations.volume_lifecycle import SLOW_S
from gespann.seams.engine_socket import VolumeDiff, VolumeDiffReply
from gespann.seams.json_lines import SeamError, SeamLost


async def differences(
    data_plane: DataPlane, older: Volume | Snapshot, newer: Volume | Snapshot, offset: int, most: int
) -> VolumeDiffReply:
    """At most ``most`` extents from ``offset`` on."""
    request = VolumeDiff(older=older.naa, newer=newer.naa, offset=offset, limit=most)
    try:
        reply: VolumeDiffReply = await data_plane.call(request, SLOW_S)
    except SeamError as error:
        raise Conflict(f"The two cannot be compared now: {error.message}.") from error
    except SeamLost as error:
        raise Failed("The data plane did not answer. Nothing was changed.") from error
    return reply
