"""What every stage does around its own work: params, the tracking row, errors, exit codes.

0    done
1    a fault of ours, with its traceback
2    a fault the user can mend, in one line
75   stopped by a signal after saving; run it again and it goes on (EX_TEMPFAIL)
130  interrupted
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gpt.errors import GptError, Interrupted
from repro.tracking import run as tracking
from stages.params import Params, load

# DVC deletes what a stage wrote before it runs the stage again. Its run-cache gives back every
# result that was there, so the way back is the same whatever failed, committed to git or not.
WAY_BACK = "back to the last result: git checkout HEAD params.yaml && dvc repro"

# A disk that is full, a file that may not grow, rights that are missing: the user's to mend.
OF_THE_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


def main(name: str, body: Callable[[Params, tracking.Row], None]) -> None:
    """Runs `body` as the stage `name` and leaves the process with the codes above."""
    try:
        params = load()
        with tracking.stage(name, params) as row:
            body(params, row)
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(75)
    except GptError as error:
        _fail(name, str(error))
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        place = error.filename or Path.cwd()
        _fail(name, f"{place}: {error.strerror}; make room, or mend its rights")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {WAY_BACK}", file=sys.stderr)
        sys.exit(130)


def _fail(name: str, message: str) -> NoReturn:
    _let_git_see(Path("params.yaml"))
    joint = " " if message.endswith(".") else "; "
    print(f"{name}: {message}{joint}{WAY_BACK}", file=sys.stderr)
    sys.exit(2)


def _let_git_see(path: Path) -> None:
    """Makes sure that git takes `path` for changed, as the way back needs it.

    DVC writes an override and git's index within one second, and the comments keep the file's size.
    A stage that fails at once would then leave a file that git, which compares whole seconds and
    sizes, takes for the committed one. Another second is enough.
    """
    try:
        facts = path.stat()
        os.utime(path, (facts.st_atime, facts.st_mtime + 1))
    except OSError:
        # There is no such file, or it is not ours: then there is no way back to smooth either.
        return
