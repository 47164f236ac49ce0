"""How DVC keeps things, which it documents nowhere or promises nobody; each is used here alone.

tests/repro/test_internals.py asks the installed DVC for every one of them.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

# Variables that it sets for a stage: the main repository, and the experiment's name.
ROOT, EXPERIMENT = "DVC_ROOT", "DVC_EXP_NAME"
# An experiment is a commit under refs/exps/12/345.../NAME, by the commit it started from.
EXPERIMENT_REFS = "refs/exps"
_EXPERIMENT_REF = re.compile(rf"(\w+) {EXPERIMENT_REFS}/[0-9a-f]{{2}}/[0-9a-f]{{38}}/(.+)")
# The cache, where no config names another.
CACHE = ".dvc/cache"


def experiments(listed: str) -> list[tuple[str, str]]:
    """(commit, name) of each experiment among lines of `COMMIT REF`; other refs are DVC's own."""
    return _EXPERIMENT_REF.findall(listed)


def cached_file(cache: Path, md5: str) -> Path:
    """Where the cache keeps a file, or the list of a folder's files."""
    return cache / "files/md5" / md5[:2] / md5[2:]


def folder_md5(files: Iterable[tuple[str, str]]) -> str:
    """The hash of a folder, from its (path in the folder, md5) pairs."""
    listed = [{"md5": md5, "relpath": Path(path).as_posix()} for path, md5 in files]
    listed.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def files_of_folder(listed: bytes) -> dict[str, str]:
    """{path in the folder: md5} from the list that the cache keeps under the folder's hash."""
    return {entry["relpath"]: entry["md5"] for entry in json.loads(listed)}
