"""What the XenAPI shows of this driver, as the SM record of XenServer's own driver did, plus ``port``."""

from gespann.seams.sr_driver import DriverInfo

INFO = DriverInfo(
    type="equal",
    name_label="EqualLogic",
    name_description="One volume of a PS-compatible array group per virtual disk; the array clones and provisions",
    capabilities=(
        *("SR_PROBE", "SR_UPDATE"),
        *("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_CLONE"),
        *("VDI_RESIZE", "VDI_RESIZE_ONLINE", "VDI_UPDATE", "VDI_SNAPSHOT", "VDI_REVERT"),
    ),
    snapshots_together=8,  # volumes in a collection of a PS group
    configuration={
        "target": "IP address or host name of the array group",
        "username": "Account of the group that creates and opens the volumes",
        "password": "Password of that account",
        "storagepool": "Storage pool that the volumes are made in; sr-probe lists them",
        "allocation": "thick or thin, for volumes that do not say it themselves (optional, thick if not given)",
        "control": "Address of the group's management network, if that is another than target (optional)",
        "port": "Port of the group's SSH service (optional, 22 if not given)",
        "chapuser": "Taken for compatibility, not used: each opening of a volume has a CHAP user of its own (optional)",
        "chappassword": "Taken for compatibility, not used (optional)",
    },
    secret_keys=frozenset({"password", "chappassword"}),
)
