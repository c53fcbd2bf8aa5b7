"""The XML that SR.probe and error 163 show. Element names as clients look for them (``SR`` with its children,
``StoragePool`` with its children, both anywhere in the document)."""

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from gespann.sr.equal.group import StoragePool

_HEAD = '<?xml version="1.0" ?>'


@dataclass(frozen=True)
class FoundSr:
    uuid: str
    size_bytes: int
    storage_pool: str
    name_label: str
    name_description: str


def sr_list(srs: Iterable[FoundSr], storage_pools: Iterable[StoragePool]) -> str:
    root = Element("SRlist")
    for sr in srs:
        item = SubElement(root, "SR")
        _texts(item, ("UUID", sr.uuid), ("Size", str(sr.size_bytes)), ("Aggregate", sr.storage_pool))
        _texts(item, ("name_label", sr.name_label), ("name_description", sr.name_description))
    _append(root, storage_pools)
    return _HEAD + tostring(root, encoding="unicode")


def storage_pool_list(storage_pools: Iterable[StoragePool]) -> str:
    root = Element("StoragePools")
    _append(root, storage_pools)
    return _HEAD + tostring(root, encoding="unicode")


def _append(root: Element, storage_pools: Iterable[StoragePool]) -> None:
    for pool in storage_pools:
        item = SubElement(root, "StoragePool")
        _texts(item, ("Name", pool.name), ("Default", str(pool.default).lower()), ("Members", str(pool.members)))
        _texts(item, ("Volumes", str(pool.volumes)), ("Capacity", str(pool.capacity_bytes)))
        _texts(item, ("Freespace", str(pool.free_bytes)))


def _texts(parent: Element, *pairs: tuple[str, str]) -> None:
    for tag, text in pairs:
        SubElement(parent, tag).text = "".join(char for char in text if char.isprintable())
