"""Files that are written in one go: whole and in place, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from mellea_cli.errors import OutputError
from mellea_cli.io.bytesout import ByteOutput, create_file, move_into_place, open_special, permissions, writable
from mellea_cli.io.target import OutputTarget


def write_whole(target: OutputTarget, pieces: Iterable[str]) -> None:
    """Write text in UTF-8. A file that is there stays as it is until everything has been written beside it.

    Args:
        target: where to, from `resolve_output`.
        pieces: the text, piece by piece.

    Raises:
        OutputError: it cannot be written there.
        ReaderGone: the reader of the pipe went away.
    """
    if target.kind != "file":
        out = (
            ByteOutput(1, target.name, owned=False)
            if target.kind == "stdout"
            else open_special(target.path, target.name)
        )
        _write(out, pieces)
        return
    mode = permissions(target.path)
    if mode is not None and not writable(target.path):
        raise OutputError(f"{target.name}: is write-protected", hint="choose another name with -o")
    try:
        _write(create_file(target.fresh, target.name, mode), pieces, durable=True)
        move_into_place(target.fresh, target.path, target.name)
    finally:
        with suppress(OSError):  # gone after the rename; after a failure it is only in the way
            target.fresh.unlink(missing_ok=True)


def _write(out: ByteOutput, pieces: Iterable[str], *, durable: bool = False) -> None:
    try:
        for piece in pieces:
            out.write(piece.encode())
        if durable:
            out.sync()
        else:
            out.flush()
    finally:
        out.close()
