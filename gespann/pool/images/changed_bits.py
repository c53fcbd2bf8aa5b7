"""The answer to VDI.list_changed_blocks: a bit for each 64 KiB of a disk, the highest bit of a byte first."""

BLOCK_BYTES = 64 * 1024


class ChangedBits:
    """Of a disk of ``size_bytes``; none is set at first."""

    def __init__(self, size_bytes: int, bits: bytes = b"") -> None:
        self.blocks = -(-size_bytes // BLOCK_BYTES)
        self._bits = bytearray(bits.ljust(-(-self.blocks // 8), b"\0"))

    def add(self, offset: int, length: int) -> None:
        """Sets what these bytes touch; what lies behind the disk's end is left out."""
        first, end = offset // BLOCK_BYTES, min(-(-(offset + length) // BLOCK_BYTES), self.blocks)
        if first >= end:
            return
        head, tail = -(-first // 8), end // 8
        if head < tail:
            self._bits[head:tail] = b"\xff" * (tail - head)
        for block in (*range(first, min(head * 8, end)), *range(max(tail * 8, first), end)):
            self._bits[block // 8] |= 0x80 >> block % 8

    def __bytes__(self) -> bytes:
        return bytes(self._bits)
