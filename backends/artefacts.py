"""Files that are made once and read often: written whole and durably, with their hash beside them, checked before they are read.

Hashes stand in the form of sha256sum(1), so that `sha256sum -c` checks them, too: in FILE.sha256 for a single file, in the
folder's own SHA256SUMS for all files of a folder. Hashes of unchanged files are remembered, so that a check costs one look at
the file's size and times; `quantboard cache verify` reads every byte.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from backends import hashes, shared

SUMS = "SHA256SUMS"
MARK = ".sha256"
"""How the file ends that holds the hash of a single file."""
PART = ".part-"
DIFFERS = "its content is not what was written"


def sync(path: Path) -> None:
    """Return when a file, or the list of names in a folder, is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and return when their names are on the disk. Raises OSError."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; it is on the disk before it has its name. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: Path, memory: Path | None = None) -> str:
    """SHA-256 of a file in hex. memory: a folder that remembers those of unchanged files. Raises OSError where the file cannot be
    read."""
    return hashes.sha256s([path], memory)[0]


def move_sealed(part: Path, path: Path, memory: Path | None = None) -> None:
    """Give a file that was written aside its name, with its hash beside it. Whoever sees the name sees a whole file and its hash,
    also after a power cut. Raises OSError."""
    sync(part)
    write_whole(mark_of(path), f"{sha256_of(part)}  {path.name}\n".encode())
    part.replace(path)
    sync(path.parent)
    if memory:
        hashes.memory_in(memory).remember([(hashes.name_of(path), mark_of(path).read_text().split()[0])])


def mark_of(path: Path) -> Path:
    return path.with_name(path.name + MARK)


def file_fault(path: Path, memory: Path | None = None) -> str:
    """What is wrong with a sealed file; empty where nothing is."""
    try:
        words = mark_of(path).read_text().split()
    except (OSError, ValueError):
        return "the file with its hash is missing"
    try:
        return "" if words == [sha256_of(path, memory), path.name] else DIFFERS
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def seal_folder(folder: Path) -> None:
    """Write the hashes of all files of a folder into it, and return when all of it is on the disk. Raises OSError."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / SUMS)
    lines = [f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    for path in (*files, *(one for one in folder.rglob("*") if one.is_dir())):
        sync(path)
    write_whole(folder / SUMS, "".join(lines).encode())


def folder_fault(folder: Path, memory: Path | None = None) -> str:
    """What is wrong with a sealed folder, with the name of the file; empty where nothing is."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
        sums = {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        return f"{SUMS} is missing"
    except (OSError, ValueError):
        return f"{SUMS} cannot be read"
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {SUMS}
    if missing := sorted(sums.keys() - there):
        return f"{missing[0]} is missing"
    if added := sorted(there - sums.keys()):
        return f"{added[0]} was added"
    for name, sha256 in sums.items():
        try:
            if sha256_of(folder / name, memory) != sha256:
                return f"{name}: {DIFFERS}"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def remember_folder(folder: Path, memory: Path) -> None:
    """Remember the hashes of a folder that has just been sealed and got its name. Never raises OSError."""
    try:
        lines = [line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()]
        hashes.memory_in(memory).remember([(hashes.name_of(folder / name), sha256) for sha256, name in lines])
    except OSError:
        pass


def put_aside(path: Path, broken: Path) -> Path:
    """Move a broken file or folder, and its hash, into the folder `broken`, and return where it is now. Where another process
    has moved it already, nothing happens. Raises OSError."""
    broken.mkdir(parents=True, exist_ok=True)
    target = broken / f"{path.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(target)
    mark_of(path).unlink(missing_ok=True)
    return target


def usable(path: Path, cache: Path) -> bool:
    """Whether a sealed file or folder is there and whole, perhaps from the store that machines share. A broken one is put aside below
    `cache`, one without a hash (of an earlier version) is deleted: both are to be made again. Raises OSError."""
    if path.is_dir():
        fault, sealed = folder_fault(path, cache / "hashes"), (path / SUMS).is_file()
    elif path.exists():
        fault, sealed = file_fault(path, cache / "hashes"), mark_of(path).is_file()
    else:
        return fetch(path, cache)
    if fault and sealed:
        put_aside(path, cache / "broken")
    elif fault and path.is_dir():
        shutil.rmtree(path)
    elif fault:
        path.unlink()
    return not fault


def fetch(path: Path, cache: Path) -> bool:
    """Bring a sealed file or folder from the store that machines share. Whether it is there now: the hashes that were packed with it
    are compared before it gets its name. A broken one is put aside, and deleted from the store. Raises OSError."""
    name = f"{path.relative_to(cache).as_posix()}.tar"
    if shared.has_none():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PART, dir=path.parent) as folder:
        packed = Path(folder) / "packed" / path.name
        packed.parent.mkdir()
        if not shared.download(name, packed):
            return False
        if _unpacked(packed, Path(folder) / path.name, path):
            return True
        put_aside(packed, cache / "broken")
        shared.discard(name)
    return False


def _unpacked(packed: Path, inside: Path, path: Path) -> bool:
    """Give the content of a packed artefact its name. False where it is not what was sealed. Raises OSError."""
    try:
        with tarfile.open(packed) as tar:
            tar.extractall(inside.parent, filter="data")
    except (tarfile.TarError, EOFError, ValueError):
        return False
    if folder_fault(inside) if inside.is_dir() else file_fault(inside):
        return False
    for made in (*inside.rglob("*"), inside):
        sync(made)
    if inside.is_file():
        write_whole(mark_of(path), mark_of(inside).read_bytes())
    try:
        inside.replace(path)
    except OSError:
        if not path.is_dir():  # else another process was first
            raise
    sync(path.parent)
    return True


def share(path: Path, cache: Path) -> str:
    """Put a sealed file or folder of the cache into the store that machines share, unless it is there. Returns what went wrong;
    empty where nothing did."""
    name = f"{path.relative_to(cache).as_posix()}.tar"
    if shared.has_none() or shared.has(name):
        return ""
    try:
        with tempfile.TemporaryDirectory(prefix=PART, dir=path.parent) as folder:
            packed = Path(folder) / path.name
            with tarfile.open(packed, "w") as tar:
                tar.add(path, path.name)
                if path.is_file():
                    tar.add(mark_of(path), mark_of(path).name)
            return shared.upload(packed, name)
    except OSError as error:
        return error.strerror or str(error)


def is_free(target: Path) -> bool:
    """Whether a folder is new or empty; what a killed `whole_folder` left in it does not count."""
    return not target.exists() or (target.is_dir() and all(one.name.startswith(PART) for one in target.iterdir()))


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into. Where the block ends well, its content becomes that of `target`, which is new or empty; otherwise
    all is as before. Raises OSError."""
    target = target.expanduser().resolve()
    inside = target.exists()  # it may be a mount point, which no other folder can replace
    make_folder(target.parent)
    for left in target.glob(f"{PART}*"):
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=PART, dir=target if inside else target.parent))
    try:
        yield part
        for path in (*part.rglob("*"), part):
            sync(path)
        if inside:
            for path in part.iterdir():
                path.rename(target / path.name)
            sync(target)
        else:
            part.chmod(0o777 & ~_umask())
            part.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def copy_file(source: Path, target: Path) -> None:
    """Copy a file so that damage of one does not reach the other, as a hard link would let it; where the file system can, the
    two share blocks until one is written to. Raises OSError."""
    import fcntl

    with source.open("rb") as read, target.open("wb") as written:
        try:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
        except OSError:
            shutil.copyfileobj(read, written, 1 << 20)


_FICLONE = 0x40049409
"""ioctl_ficlone(2)."""
