"""Landlock: a process gives up, for itself and all that it starts, every file that it does not name.

The kernel's interface is three system calls without a wrapper in libc. What an older kernel does not know is left out:
files from version 1 on, TCP from 4, signals to and abstract sockets of others from 6. A confined process cannot trace
others either, so that it reads neither their memory nor their environment.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_SET_NO_NEW_PRIVS = 38

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15
_ACCESS_BY_VERSION = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV))
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that a rule on something other than a folder may grant."""
_TCP = 0b11
_SCOPES = 0b11

_READ = _EXECUTE | _READ_FILE | _READ_DIR


def version() -> int:
    """Of the kernel's interface; 0 where there is none."""
    got = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(int(got), 0)


def confine(*, read: Iterable[Path], write: Iterable[Path], network: bool) -> None:
    """Leave this thread, and what it starts, only these files and folders: `read` to read and execute, `write` for
    everything. Paths that do not exist are left out. Raises OSError where the kernel refuses."""
    known = version()
    handled = 0
    for since, rights in _ACCESS_BY_VERSION:
        handled |= rights if known >= since else 0
    attributes = struct.pack("QQQ", handled, _TCP if known >= 4 and not network else 0, _SCOPES if known >= 6 else 0)
    length = 24 if known >= 6 else 16 if known >= 4 else 8
    libc = _libc()
    ruleset = _checked(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(length), 0))
    try:
        for paths, rights in ((read, handled & _READ), (write, handled)):
            for path in paths:
                _allow(libc, ruleset, path, rights)
        _checked(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        # A packed structure: the rights in 64 bits, then the descriptor in 32.
        rule = struct.pack("=Qi", rights, opened)
        _checked(libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(opened)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
