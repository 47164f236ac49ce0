"""Runs a module as `python -m` does, with what Windows has, lacks and refuses.

    python tests/simulated_windows.py stages.train

It is Linux all the same: libraries see it as it is. Our code sees paths with backslashes, no
`fork` or `resource`, text files with CRLF unless it says otherwise, and refusals of what Windows
does not allow (deleting an open file, syncing one that is open for reading, a colon in a name).
With STOP_AT=step_00000020 it gets Ctrl+C when a file or folder is given that name.
"""

import builtins
import io
import os
import pathlib
import re
import runpy
import shutil
import signal
import sqlite3
import sys
import types
from pathlib import Path
from typing import Any

OURS = ("gpt", "verse", "repro", "stages", "commands", "workshop")
ABSENT_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "termios")
# os.execve is there, but the shell does not wait for what it starts.
ABSENT = {
    "os": "execv execve fork forkpty geteuid getgid getloadavg getpgid getuid killpg mkfifo "
    "O_DIRECTORY O_NOFOLLOW sched_getaffinity setsid sysconf uname wait4 WNOHANG",
    "signal": "alarm pthread_sigmask setitimer SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE "
    "SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2",
    "socket": "AF_UNIX",
    "time": "tzset",
}
PRESENT = {
    "os": {"name": "nt", "linesep": "\r\n", "sep": "\\"},
    "signal": {"SIGBREAK": getattr(signal, "SIGQUIT", None)},
    "sys": {"platform": "win32"},
}
ILLEGAL = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$|(?i:^(con|prn|aux|nul|com\d|lpt\d)(\.|$))')


class SimulatedModule(types.ModuleType):
    """A module of the standard library as our code sees it."""

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT.get(self.__name__, "").split():
            raise AttributeError(f"module '{self.__name__}' on Windows has no '{name}'")
        return getattr(sys.modules[self.__name__], name)


class BackslashPath(pathlib.PosixPath):
    """Prints as on Windows; opens as here. What it overrides is of Python 3.11."""

    @classmethod
    def _parse_args(cls, args: Any) -> Any:
        return super()._parse_args(map(with_slashes, args))  # type: ignore[misc]

    def __str__(self) -> str:
        return super().__str__().replace("/", "\\")

    def __fspath__(self) -> str:
        return super().__str__()

    as_posix = __fspath__


def with_slashes(path: Any) -> Any:
    return path.replace("\\", "/") if isinstance(path, str) else path


def simulate() -> None:
    """From here on, in this process."""
    _replace_modules()
    _refuse()
    real_open, real_connect = io.open, sqlite3.connect

    def open_as_text(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not {"b", "r"} & set(mode) and more.get("newline") is None and len(args) < 4:
            more["newline"] = "\r\n"
        return real_open(file, mode, *args, **more)

    def connect(database: Any, *args: Any, **more: Any) -> Any:
        return real_connect(with_slashes(database), *args, **more)

    io.open = builtins.open = open_as_text  # type: ignore[assignment]
    sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[attr-defined]


def _replace_modules() -> None:
    replaced: dict[str, types.ModuleType] = {}
    for name in {*ABSENT, *PRESENT, "pathlib"}:
        replaced[name] = SimulatedModule(name)
        replaced[name].__dict__.update(PRESENT.get(name, {}))
    replaced["pathlib"].Path = BackslashPath  # type: ignore[attr-defined]
    real_import = builtins.__import__

    def import_as_on_windows(name: str, importer: Any = None, *args: Any, **more: Any) -> Any:
        module = getattr((importer or {}).get("__spec__"), "name", "")
        if module.partition(".")[0] in OURS:
            if name in ABSENT_MODULES:
                raise ModuleNotFoundError(f"No module named '{name}' on Windows", name=name)
            if name in replaced:
                return replaced[name]
        return real_import(name, importer, *args, **more)

    builtins.__import__ = import_as_on_windows


def _refuse() -> None:
    import fcntl  # Windows, where tests import this module too, has none

    # With file descriptors it would open folders, which Windows does not.
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    real_open, real_rename, real_fsync = os.open, os.rename, os.fsync

    def open_file(path: Any, *args: Any, **more: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Windows opens no folder", path)
        return real_open(path, *args, **more)

    def rename(old: Any, new: Any, **more: Any) -> None:
        if Path(new).exists():
            raise FileExistsError(17, "Windows renames to no name that is taken", new)
        real_rename(old, new, **more)

    def fsync(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Windows syncs no file that is open for reading")
        real_fsync(number)

    os.open, os.rename, os.fsync = open_file, rename, fsync  # type: ignore[assignment]
    sys.addaudithook(_audit)


def _audit(event: str, values: Any) -> None:
    if event in ("os.remove", "os.rename", "os.rmdir"):
        for path in values[: 2 if event == "os.rename" else 1]:
            _refuse_if_open(Path(path).resolve())
        if event == "os.rename" and str(values[1]).endswith(os.environ.get("STOP_AT", "\0")):
            signal.raise_signal(signal.SIGINT)
    writes = event == "open" and isinstance(values[0], str) and values[2] & os.O_CREAT
    if writes and ILLEGAL.search(Path(values[0]).name):
        raise OSError(22, "not a name on Windows", values[0])


def _refuse_if_open(path: Path) -> None:
    if path.is_file() and not path.stat().st_mode & 0o200:
        raise PermissionError(13, "Windows deletes and renames no read-only file", str(path))
    opened = [str(link.resolve()) for link in Path("/proc/self/fd").iterdir()]
    with io.FileIO("/proc/self/maps") as maps:  # memory-mapped
        opened += re.findall(r"(/\S+)$", maps.readall().decode(), re.MULTILINE)
    if any(name == str(path) or name.startswith(f"{path}/") for name in opened):
        raise PermissionError(13, "Windows deletes and renames no open file", str(path))


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    sys.argv = sys.argv[1:]
    simulate()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
