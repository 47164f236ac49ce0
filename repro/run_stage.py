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
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from repro import repository, surroundings
from repro.errors import Interrupted
from repro.lockfile import read_yaml
from repro.project import AnyParams, Project
from repro.repository import WorkingFolder
from repro.tracking import run as tracking

# DVC deletes what a stage wrote before it runs the stage again. Its run-cache has every earlier
# result, so this works whatever failed, committed to git or not.
RESTORE = "to restore the last result: git checkout HEAD params.yaml && dvc repro"

# A full disk, a file that may not grow, missing permissions: for the user to fix.
ADVICE = {
    errno.ENOSPC: "free disk space and run the same command",
    errno.EDQUOT: "free disk space and run the same command",
    errno.EFBIG: "raise the limit of a file's size",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def main(
    project: Project[AnyParams], name: str, body: Callable[[AnyParams, tracking.Run], None]
) -> None:
    """Runs `body` as the stage `name` and ends the process with the codes above."""
    surroundings.print_utf8()
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
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {RESTORE}", file=sys.stderr)
        sys.exit(130)


def disk_fault(error: OSError) -> str:
    """One line for what the user can fix; raises `error` itself where it is a bug."""
    if error.errno not in ADVICE:
        raise error
    path = error.filename or Path.cwd()
    return f"{path}: {(error.strerror or '').lower()}; {ADVICE[error.errno]}"


def _begin(name: str) -> None:
    surroundings.set_matplotlib_folder()
    surroundings.check_name(os.environ.get("DVC_EXP_NAME"))
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
