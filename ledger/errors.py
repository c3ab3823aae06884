"""Errors that a user can fix."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can fix: the message is one sentence that says how."""


class LedgerVersionError(UserError):
    """A file of the ledger was written by another version of this project."""


class DamagedFile(UserError):
    """A file of the ledger that is not what was written."""
