"""What kernels ask the operating system: which folders can be trusted with code that is run.

:mod:`fastnet._system` has all other questions. These stand here because kernels import nothing of fastnet but
``fastnet.kernels``.
"""
import contextlib
import os
import stat
from pathlib import Path

_MAX_LINKS = 40


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
        writable = not mode & stat.S_ISVTX and (
            mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_private_group(found.st_gid)))
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
