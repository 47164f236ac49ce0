"""What we know of MLflow and DVC though they promise it to nobody: the installed versions agree.

A failure here names the release that moved something; what it names is to be changed in
repro/tracking/mlflow_internals.py or repro/dvc_internals.py, and nowhere else.
"""

import ast
import re
import sqlite3
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
from tracked_runs import open_store
from trial_repository import REPOSITORY, TrialRepository

from repro import dvc_internals
from repro.tracking import mlflow_internals

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MLFLOW, DVC = (f"{name} {metadata.version(name)}" for name in ("mlflow", "dvc"))


# --- MLflow ---------------------------------------------------------------------------------------


def test_the_tables_with_addresses_are_all_of_them(empty_database: Path) -> None:
    with closing(sqlite3.connect(empty_database)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        columns = {
            (table, column[1])
            for (table,) in tables
            for column in database.execute(f"PRAGMA table_info({table})")
        }
    assert set(mlflow_internals.ADDRESSES) <= columns, f"{MLFLOW} renamed a column"
    addresses = re.compile("artifact_(uri|location)|storage_location")
    others = {c for c in columns if addresses.search(c[1])} - {*mlflow_internals.ADDRESSES}
    # Of a workspace, which a store like ours has none of: a default for new experiments.
    others -= {("workspaces", "default_artifact_root")}
    assert others == set(), f"{MLFLOW} keeps addresses in more columns"


def test_a_fresh_database_has_the_newest_of_the_known_versions(empty_database: Path) -> None:
    with closing(sqlite3.connect(empty_database)) as database:
        (version,) = database.execute(mlflow_internals.VERSION).fetchone()
    assert version == mlflow_internals.database_versions()[0], f"{MLFLOW} keeps it elsewhere"


def test_what_is_said_of_another_version_is_recognized(trial: TrialRepository) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'abc123'")
    engine = create_engine(f"sqlite:///{trial.folder}/mlflow.db")
    with pytest.raises(MlflowException) as refused:
        utils._verify_schema(engine)
    engine.dispose()
    assert mlflow_internals.other_version(refused.value) == "abc123", f"{MLFLOW} says it otherwise"
    assert mlflow_internals.other_version(ValueError("found version 1")) is None


def test_the_thread_and_the_dataset_are_as_a_stage_uses_them(trial: TrialRepository) -> None:
    store = open_store()
    run = store.client.create_run(store.experiment)
    monitor = mlflow_internals.system_metrics(run.info.run_id, store.uri, 5, False)
    monitor.start()
    monitor.finish()
    dataset = mlflow_internals.dataset_input("data/corpus", "verse", "0" * 32)
    store.client.log_inputs(run.info.run_id, [dataset])
    (logged,) = store.client.get_run(run.info.run_id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("verse", "0" * 32), MLFLOW


def test_the_page_knows_the_tags_and_the_address_of_a_view() -> None:
    import mlflow

    scripts = Path(mlflow.__file__).parent / "server/js/build/static/js"
    words = {
        mlflow_internals.view_tag(""),
        *mlflow_internals.KIND_OF_EXPERIMENT,
        *re.findall(r"[?&](\w+)=", mlflow_internals.table_page("1", "x")),
    }
    for script in scripts.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        words = {word for word in words if word not in text}
        if not words:
            return
    pytest.fail(f"{MLFLOW} does not know {words} in its pages")


# --- DVC ------------------------------------------------------------------------------------------


def test_the_names_of_variables_and_of_experiments_are_dvcs() -> None:
    from dvc import env
    from dvc.repo.experiments import refs

    assert (env.DVC_ROOT, env.DVC_EXP_NAME) == (dvc_internals.ROOT, dvc_internals.EXPERIMENT), DVC
    assert dvc_internals.EXPERIMENT_REFS == refs.EXPS_NAMESPACE, DVC
    commit, baseline = "a" * 40, "0123456789" * 4
    lines = [f"{commit} {refs.ExpRefInfo(baseline, name)}" for name in ("calm-fox", "it's")]
    lines += [f"{commit} {name}" for name in (refs.CELERY_STASH, refs.EXEC_HEAD, refs.APPLY_HEAD)]
    expected = [(commit, "calm-fox"), (commit, "it's")]
    assert dvc_internals.experiments("\n".join(lines)) == expected, f"{DVC} moved its experiments"


def test_a_folder_is_hashed_listed_and_kept_as_dvc_does(tmp_path: Path) -> None:
    from dvc.cachemgr import CacheManager
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.db import ObjectDB
    from dvc_objects.fs import LocalFileSystem

    files = {"b/1.txt": "1" * 32, "a.txt": "2" * 32}
    tree = Tree()
    for path, md5 in files.items():
        tree.add(tuple(path.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    assert dvc_internals.folder_md5(files.items()) == tree.oid, f"{DVC} hashes folders otherwise"
    assert dvc_internals.files_of_folder(tree.as_bytes()) == files, f"{DVC} lists them otherwise"
    kept = ObjectDB(LocalFileSystem(), str(tmp_path / CacheManager.FILES_DIR / "md5"))
    path = dvc_internals.cached_file(tmp_path, "1" * 32)
    assert str(path) == kept.oid_to_path("1" * 32), f"{DVC} moved its cache"


# --- nowhere else ---------------------------------------------------------------------------------

INTERNAL = re.compile(r"refs/exps|files/md5|\.dvc/cache$|mlflow\.(sharedViewState|experimentKind)")
PRIVATE = re.compile(r"mlflow\.(store|data|system_metrics|server|utils)\b")


@pytest.mark.parametrize("package", ["gpt", "repro", "stages", "commands", "workshop"])
def test_nobody_else_knows_them(package: str) -> None:
    internals = ("mlflow_internals.py", "dvc_internals.py")
    faults = []
    for file in (REPOSITORY / package).rglob("*.py"):
        if file.name in internals:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if INTERNAL.search(node.value) and id(node) not in docstrings:
                    faults.append(f"{file}:{node.lineno}: {node.value}")
            elif isinstance(node, ast.ImportFrom) and PRIVATE.match(node.module or ""):
                faults.append(f"{file}:{node.lineno}: {node.module}")
    assert faults == []
