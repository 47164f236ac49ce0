"""What every stage does around its own work: params, the tracking run, errors, exit codes.

    if __name__ == "__main__":
        run_stage.main(PROJECT, "train", train)  # def train(params: Params, run: Run) -> None

0    done
1    a bug, with its traceback
2    a fault that the user can fix, in one line
75   stopped by a signal after saving; the same command resumes it (EX_TEMPFAIL)
130  interrupted
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from repro import dvc_internals, repository, surroundings
from repro.errors import Interrupted, UserError
from repro.lockfile import read_yaml
from repro.project import AnyParams, Project
from repro.repository import WorkingFolder
from repro.tracking import run as tracking

# DVC deletes what a stage wrote before it runs the stage again. Its run-cache has every earlier
# result, so this works whatever failed, committed to git or not.
RESTORE = "to restore the last result: git checkout HEAD params.yaml && dvc repro"

# A full disk, a file that may not grow, missing permissions, something in the way: for the user.
ADVICE = {
    errno.ENOSPC: "free disk space and run the same command",
    errno.EDQUOT: "free disk space and run the same command",
    errno.EFBIG: "raise the limit of a file's size",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.ENOTDIR: "a file is where a folder should be: move it",
    errno.EEXIST: "something else is where a folder should be: move it",
    errno.EISDIR: "a folder is where a file should be: move it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk",
}


def main(
    project: Project[AnyParams], name: str, body: Callable[[AnyParams, tracking.Run], None]
) -> None:
    """Runs `body` as the stage `name` and ends the process with the codes above."""
    read_arguments(name)
    surroundings.print_utf8()
    try:
        _check_folder()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        _begin(name)
        params = project.load()
        with tracking.stage(project, name, params) as run:
            body(params, run)
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(75)
    except project.faults as error:
        _fail(name, str(error))
    except OSError as error:
        _fail(name, disk_fault(error))
    except SystemExit as stop:
        _fail(name, premature_exit(stop))
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {RESTORE}", file=sys.stderr)
        sys.exit(130)


def read_arguments(name: str) -> None:
    """Answers --help, and ends the process for all else: a stage is steered by params.yaml."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & {*arguments}:
        print((sys.modules["__main__"].__doc__ or "").strip())
        sys.exit(0)
    if arguments:
        print(
            f"{name}: {arguments[0]}: a stage takes no options; set params.yaml, or "
            "dvc exp run -S KEY=VALUE",
            file=sys.stderr,
        )
        sys.exit(2)


def premature_exit(stop: SystemExit) -> str:
    """One line for a `sys.exit` in code of the user's that was called, as in model.source."""
    frames = traceback.extract_tb(stop.__traceback__)
    # Not exit's own file, nor argparse's.
    here = [f for f in frames if Path(f.filename).is_file() and "site-packages" not in f.filename]
    ours = [f for f in here if Path(f.filename).resolve().is_relative_to(Path.cwd().resolve())]
    frame = [frames[-1], *ours][-1]
    return f"{frame.filename}:{frame.lineno}: {frame.line}: it ends the program; remove it"


def disk_fault(error: OSError) -> str:
    """One line for what the user can fix; raises `error` itself where it is a bug."""
    if error.errno not in ADVICE:
        raise error
    path = error.filename or Path.cwd()
    return f"{path}: {(error.strerror or '').lower()}; {ADVICE[error.errno]}"


def _check_folder() -> None:
    """Raises UserError where the stage was started in another folder than DVC starts it in."""
    root = repository.root()
    if not Path("dvc.yaml").is_file():
        raise UserError(f"{Path.cwd()}: has no dvc.yaml; change to {root}")


def _begin(name: str) -> None:
    surroundings.set_matplotlib_folder()
    surroundings.check_name(os.environ.get(dvc_internals.EXPERIMENT))
    root = repository.root()
    note = surroundings.check_folder(root, copied=Path.cwd().resolve() != root)
    # Once for a pipeline, not for each stage.
    if note and name == next(iter(read_yaml(WorkingFolder(), "dvc.yaml").get("stages") or {}), ""):
        print(f"note: {note}", file=sys.stderr)


def _fail(name: str, message: str) -> NoReturn:
    _let_git_see(Path("params.yaml"))
    joint = " " if message.endswith(".") else "; "
    print(f"{name}: {message}{joint}{RESTORE}", file=sys.stderr)
    sys.exit(2)


def _let_git_see(path: Path) -> None:
    """Makes sure that git takes `path` for changed, as RESTORE needs it.

    DVC writes an override and git's index within one second, and the comments keep the file's size.
    A stage that fails at once would then leave a file that git, which compares whole seconds and
    sizes, takes for the committed one. Another second is enough.
    """
    try:
        stat = path.stat()
        os.utime(path, (stat.st_atime, stat.st_mtime + 1))
    except OSError:
        # There is no such file, or it is not ours: then there is nothing to restore either.
        return
