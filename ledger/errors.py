"""Errors that a user can fix."""

from __future__ import annotations

import errno


class UserError(Exception):
    """A mistake that the user can fix: the message is one sentence that says how."""


class LedgerVersionError(UserError):
    """A file of the ledger was written by another version of this project."""


class DamagedFile(UserError):
    """A file of the ledger that is not what was written."""


class MalformedFile(DamagedFile):
    """A file of the ledger that is not JSON, or lacks a key or a type that it should have: it was
    not written here, or has no digest that would show damage."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK = (*FULL, errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES, errno.EPERM)


def disk_trouble(error: OSError) -> str | None:
    """What a file system has refused, as a sentence; None for errors that may be of our making."""
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.filename}: {error.strerror}; type a shorter name"
    if error.errno not in DISK:
        return None
    way = "free some space" if error.errno in FULL else "see to the disk or its permissions"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; {way} and type the same command again, it goes on from there"
