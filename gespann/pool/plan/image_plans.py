"""Plans for disks as image files: VHD, qcow2, and raw in pieces."""

from gespann.pool.images import formats, vhd
from gespann.pool.model.database import Database
from gespann.pool.plan.disk_plans import assert_streamable, closing, open_by_pool
from gespann.pool.plan.shapes import Act, Lock, Plan, operation
from gespann.pool.plan.storage_view import attached_hosts
from gespann.seams.xenapi.errors import XenApiError


@operation("VDI.import_image")
def plan_import_image(db: Database, vdi: str, format_name: str, prefix: str) -> Plan:
    """``memory["body"]`` is the file."""
    host = assert_streamable(db, vdi, "RW", "import")
    record = db.get("VDI", vdi)
    opened = open_by_pool(record["SR"], vdi, record["uuid"], "RW", prefix)
    args = {"host": host, "opening_id": opened.args["opening_id"], "format": format_name}
    acts = (opened, Act("image-decode", args), closing(opened))
    return Plan("VDI.import_image", acts, (Lock("VDI", vdi, "copy"),))


@operation("VDI.export_image")
def plan_export_image(db: Database, vdi: str, base: str, format_name: str, prefix: str) -> Plan:
    """``base`` "": all of it. ``memory["sink"]`` gets the file, after ``memory["begin"]`` was told its length."""
    sides = [vdi, base] if base else [vdi]
    records = [db.get("VDI", side) for side in sides]
    host = assert_streamable(db, vdi, "RO", "export")
    if format_name == formats.VHD and records[0]["virtual_size"] > vhd.LARGEST_BYTES:
        raise XenApiError("VDI_TOO_LARGE", [vdi, str(vhd.LARGEST_BYTES)])
    if base:
        assert_streamable(db, base, "RO", "export")
        hosts = [one for one in attached_hosts(db, records[0]["SR"]) if one in attached_hosts(db, records[1]["SR"])]
        if not hosts:
            raise XenApiError("HOST_CANNOT_SEE_SR", [records[1]["SR"]])
        host = hosts[0]
    opened = [open_by_pool(r["SR"], ref, r["uuid"], "RO", prefix) for ref, r in zip(sides, records, strict=True)]
    args = {
        "host": host,
        "opening_id": opened[0].args["opening_id"],
        "base": opened[1].args["opening_id"] if base else "",
        "format": format_name,
        "uuids": [record["uuid"] for record in records],
    }
    acts = (*opened, Act("image-encode", args), *(closing(act) for act in opened))
    locks = tuple(Lock("VDI", side, "copy", shared=True) for side in dict.fromkeys(sides))
    return Plan("VDI.export_image", acts, locks)
