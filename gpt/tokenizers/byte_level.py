"""Bytes as printable characters, as GPT-2 writes its tokens into text files."""

# The printable bytes as themselves (in the order of GPT-2's first ids), the others as the
# characters
# from U+0100 on: bytes_to_unicode in encoder.py of the release (Radford et al. 2019).
_PRINTABLE = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
_UNPRINTABLE = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_TO_UNICODE = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(_UNPRINTABLE)
}
