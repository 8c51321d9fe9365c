"""Files of arrays whose headers say what their bytes may not have."""

from __future__ import annotations

import io
import zipfile


def member(header: str, numbers: bytes, compressed: bool = False, name: str = "a") -> bytes:
    """An archive of one array whose header says so."""
    text = header.ljust(117) + "\n"
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as archive:
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + numbers
        archive.writestr(f"{name}.npy", content)
    return out.getvalue()


def described(shape: str, dtype: str = "<f4") -> str:
    """The header of an array."""
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


def announcing(content: bytes, size: int) -> bytes:
    """The archive, whose index says that its first member has so many bytes."""
    at = content.index(b"PK\x01\x02") + 24
    return content[:at] + size.to_bytes(4, "little") + content[at + 4 :]
