"""The answer to VDI.list_changed_blocks: a bit for each 64 KiB of a disk, the highest bit of a byte first."""

BLOCK_BYTES = 64 * 1024


def bits_length(size_bytes: int) -> int:
    """Bytes of bits for a disk."""
    return -(-size_bytes // (BLOCK_BYTES * 8))


class ChangedBits:
    """Of a disk of ``size_bytes``; none is set at first, or those of ``bits``."""

    def __init__(self, size_bytes: int, bits: bytes = b"") -> None:
        self.blocks = -(-size_bytes // BLOCK_BYTES)
        self._bits = bytearray(bits[: bits_length(size_bytes)].ljust(bits_length(size_bytes), b"\0"))
        if self.blocks % 8:  # behind the end there is nothing
            self._bits[-1] &= 0xFF00 >> self.blocks % 8 & 0xFF

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
