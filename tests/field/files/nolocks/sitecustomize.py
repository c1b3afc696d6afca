"""A file system without locks, as some network drives are: every lock on a file is refused."""

import errno
import fcntl
import os

_CODE = getattr(errno, os.environ.get("FIELD_LOCK_ERROR", "ENOLCK"))


def _refused(*_: object) -> None:
    raise OSError(_CODE, os.strerror(_CODE))


fcntl.flock = fcntl.lockf = _refused
