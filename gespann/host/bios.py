"""The strings of a machine's SMBIOS tables that can be told and given: XenAPI's names for them."""

from pathlib import Path

DMI = Path("/sys/class/dmi/id")
#: XenAPI's key -> (libvirt's block and entry, the kernel's file about this machine's own)
BIOS_STRINGS: dict[str, tuple[str, str, str]] = {
    "bios-vendor": ("bios", "vendor", "bios_vendor"),
    "bios-version": ("bios", "version", "bios_version"),
    "system-manufacturer": ("system", "manufacturer", "sys_vendor"),
    "system-product-name": ("system", "product", "product_name"),
    "system-version": ("system", "version", "product_version"),
    "system-serial-number": ("system", "serial", "product_serial"),
    "baseboard-manufacturer": ("baseBoard", "manufacturer", "board_vendor"),
    "baseboard-product-name": ("baseBoard", "product", "board_name"),
    "baseboard-version": ("baseBoard", "version", "board_version"),
    "baseboard-serial-number": ("baseBoard", "serial", "board_serial"),
    "baseboard-asset-tag": ("baseBoard", "asset", "board_asset_tag"),
    "baseboard-location-in-chassis": ("baseBoard", "location", ""),
    "enclosure-asset-tag": ("chassis", "asset", "chassis_asset_tag"),
}
LONGEST = 512


def own_bios_strings(directory: Path = DMI) -> dict[str, str]:
    """Of this machine: those that its firmware has told the kernel."""
    found = {}
    for name, (_, _, file) in BIOS_STRINGS.items():
        try:
            text = (directory / file).read_text(errors="replace").strip() if file else ""
        except OSError:
            continue
        shown = "".join(letter for letter in text if " " <= letter <= "~")[:LONGEST]
        if shown:
            found[name] = shown
    return found
