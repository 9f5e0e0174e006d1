"""What kernels ask the operating system: cores that may be used, and folders that can be trusted with code that is run.

:mod:`fastnet.base.system` has all other questions. These stand here because kernels import nothing of fastnet but
``fastnet.kernels``.
"""
import contextlib
import ctypes
import math
import os
import stat
import struct
import sys
from collections.abc import Collection
from pathlib import Path

import platformdirs

_MAX_LINKS = 40

# --- cores ----------------------------------------------------------------------------------------------------------


def available_cores() -> int:
    """Cores that this process may use: its affinity, hyper-threads counted once, within its control group.

    Of a CPU with fast and slow cores, the fast ones: kernels share work out evenly, so that one slow core would keep all
    others waiting.
    """
    if sys.platform == "darwin":
        cores = _mac_cores()
    elif sys.platform == "win32":
        cores = _windows_cores()
    else:
        cores = _linux_cores()
    limit = _cgroup_cpus()
    return max(1, cores if math.isinf(limit) else min(cores, int(limit + 0.5)))


def _allowed_cpus() -> Collection[int]:
    """Logical CPUs that this process may run on; all, where the system does not say or a sandbox forbids to ask."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _linux_cores(devices: Path = Path("/sys/devices")) -> int:
    cpus = _allowed_cpus()
    with contextlib.suppress(OSError, ValueError):  # there is such a list only where there are slow cores as well
        cpus = _cpu_list((devices / "cpu_core" / "cpus").read_text()).intersection(cpus) or cpus
    try:
        return len({(devices / f"system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in cpus})
    except OSError:
        return len(cpus)


def _cpu_list(text: str) -> set[int]:
    """The numbers in a list such as 0-3,8,10-11."""
    ranges = [part.split("-") for part in text.strip().split(",")]
    return {cpu for part in ranges for cpu in range(int(part[0]), int(part[-1]) + 1)}


def _mac_cores() -> int:
    for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):  # the first is of Apple's own CPUs: their fast cores
        if cores := mac_number(name):
            return cores
    return os.cpu_count() or 1


def mac_number(name: str) -> int:
    """A whole number that macOS's sysctl has under a name; 0 where it has none."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)  # little-endian: right for 4-byte numbers, too
    with contextlib.suppress(OSError, AttributeError):
        sysctl = ctypes.CDLL(None).sysctlbyname
        if sysctl(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)) == 0:
            return value.value
    return 0


def _windows_cores() -> int:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
        size = ctypes.c_uint32(0)
        kernel.GetLogicalProcessorInformationEx(0, None, ctypes.byref(size))  # 0: cores; tells how long the answer is
        answer = ctypes.create_string_buffer(size.value)
        allowed, existing = ctypes.c_size_t(0), ctypes.c_size_t(0)
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        if (kernel.GetLogicalProcessorInformationEx(0, answer, ctypes.byref(size))
                and kernel.GetProcessAffinityMask(process, ctypes.byref(allowed), ctypes.byref(existing))):
            return _fast_cores(answer.raw[:size.value], allowed.value or ~0) or os.cpu_count() or 1
    return os.cpu_count() or 1


def _fast_cores(records: bytes, allowed: int) -> int:
    """Cores of the highest class in Windows's answer (SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX) with a CPU in a mask."""
    classes, start = [], 0
    while start < len(records):
        size, efficiency, mask = (struct.unpack_from(kind, records, start + place)[0]
                                  for kind, place in (("<I", 4), ("<B", 9), ("<Q", 32)))
        if mask & allowed:
            classes.append(efficiency)
        start += size
    return classes.count(max(classes, default=0))


def _cgroup_cpus(group: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that the control group allows, infinity where there is no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((group / "cpu/cpu.cfs_quota_us").read_text())
        return quota_us / int((group / "cpu/cpu.cfs_period_us").read_text()) if quota_us > 0 else math.inf
    return math.inf


# --- folders --------------------------------------------------------------------------------------------------------


def user_cache() -> Path | None:
    """The user's folder for what fastnet can make or fetch again; None without a home directory.

    Older versions of platformdirs then answer with a folder called ``~`` below the current one, and a relative
    $XDG_CACHE_HOME is invalid by its specification.
    """
    with contextlib.suppress(RuntimeError):  # newer versions without a home
        folder = Path(platformdirs.user_cache_dir("fastnet", appauthor=False))
        if folder.is_absolute():
            return folder
    return None


class UntrustedFolderError(PermissionError):
    """Somebody else could put files into a folder, or another folder in its place."""


def trusted_folder(folder: str | os.PathLike[str]) -> Path:
    """The real place of a folder that nobody but this user and root can change.

    Each part of the path is looked at without following links: it must belong to this user or to root and be writable by
    nobody else. Parents may also be sticky, as the system's folder for temporary files is: there nobody can replace what
    belongs to others. A link in the path must belong to this user or to root as well, and so must all that it leads
    through. The folder itself must be this user's. The path returned has no links, and what was checked cannot be changed
    by others afterwards.

    On Windows the user's profile, which has the cache and the temporary files, is private by its access lists, which this
    function does not read.

    Raises
    ------
    UntrustedFolderError
        If somebody else could change it; the text names the part of the path, and why.
    OSError
        If it does not exist or cannot be looked at.
    """
    if os.name == "nt":
        return Path(os.path.realpath(folder, strict=True))
    path = Path.cwd() / folder
    current, parts, links = Path(path.anchor), list(path.parts[1:]), 0
    _check_part(current, os.lstat(current), is_last=not parts)
    while parts:
        part = parts.pop(0)
        if part == "..":
            current = current.parent
            continue
        found = os.lstat(current / part)
        _check_part(current / part, found, is_last=not parts)
        if not stat.S_ISLNK(found.st_mode):
            current /= part
            continue
        links += 1
        if links > _MAX_LINKS:
            raise UntrustedFolderError(f"{folder} has too many links")
        target = Path(os.readlink(current / part))
        parts[:0] = target.parts[1:] if target.is_absolute() else target.parts
        current = Path(target.anchor) if target.is_absolute() else current
    return current


def trusted_file(file: Path) -> Path:
    """The real place of a file that nobody but its owner and root can change, nor put another in its place.

    Unlike a folder's, its owner may be root: that is how programs are installed for all users. Links lead nowhere here.

    Raises
    ------
    UntrustedFolderError, OSError
        As of `trusted_folder`.
    """
    if os.name == "nt":
        return Path(os.path.realpath(file, strict=True))
    path = Path(os.path.realpath(file.parent, strict=True))
    for part in [*reversed(path.parents), path]:
        _check_part(part, os.lstat(part), is_last=False)
    found = os.lstat(path / file.name)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise UntrustedFolderError(f"{path / file.name} is a link, or belongs to another user")
    if _others_may_write(found):
        raise UntrustedFolderError(f"others may write to {path / file.name}")
    return path / file.name


def _others_may_write(found: os.stat_result) -> bool:
    mode = found.st_mode
    return bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_private_group(found.st_gid)))


def _check_part(path: Path, found: os.stat_result, is_last: bool) -> None:
    user, mode = os.geteuid(), found.st_mode
    is_link = stat.S_ISLNK(mode)
    if found.st_uid != user and (found.st_uid != 0 or (is_last and not is_link)):
        raise UntrustedFolderError(f"{path} belongs to another user")
    if is_link:  # its own permissions mean nothing, and what it leads to is looked at next
        return
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(f"{path} is not a folder")
    if is_last:
        writable = mode & (stat.S_IWGRP | stat.S_IWOTH)
    else:
        writable = not mode & stat.S_ISVTX and _others_may_write(found)
    if writable:
        raise UntrustedFolderError(f"others may write in {path}")


def _is_private_group(gid: int) -> bool:
    """Whether a group is the user's own, with nobody else in it: some systems give each user one, and a umask of 002."""
    import grp
    import pwd

    with contextlib.suppress(KeyError):  # no name for the user or for the group
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        return (user.pw_uid != 0 and user.pw_gid == gid and group.gr_name == user.pw_name
                and set(group.gr_mem) <= {user.pw_name})
    return False


def make_private_folder(folder: Path) -> Path:
    """Make a folder, with the parents that are missing, for this user alone; returns its real place.

    Raises
    ------
    OSError
        If it cannot be made, or is there and cannot be trusted: see `trusted_folder`.
    """
    for part in [*reversed(folder.absolute().parents), folder]:
        with contextlib.suppress(FileExistsError):
            if not part.is_dir():
                os.mkdir(part, 0o700)  # mkdir(parents=True) would make parents with the umask's mode
    return trusted_folder(folder)
