"""`gpt promote`: the best model so far, in MLflow's registry under the alias `champion`.

There is one registered model for each corpus. An experiment takes the alias when its seeds show it
better than the champion's beyond noise (gpt/evaluation/significance.py), or when there is no
champion yet. The champion's scores, by seed, stand in the version's tags. `mlflow models serve`
answers with text from it; commands/served_model.py is what answers.
"""

import json
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from commands import experiments
from commands.compare import groups_of
from commands.experiments import Experiment
from commands.root import at_root
from gpt.config import OUR_SOURCE
from gpt.errors import DataError, ParamsError
from gpt.evaluation.significance import Verdict, compare
from repro.lockfile import Pipeline
from repro.repository import Commit, WorkingFolder
from repro.tracking.backfill import backfill_runs
from repro.tracking.run import reason
from repro.tracking.store import Store
from stages.params import MODEL, PROJECT, load

ALIAS = "champion"
CODE = Path(__file__).with_name("served_model.py")
# What commands/served_model.py and gpt/ import, for a server in an environment of its own.
REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "tqdm", "regex", "tiktoken", "pandas")

app = typer.Typer(add_completion=False)


def promote(name: str) -> tuple[Verdict | None, str | None]:
    """Compares the experiment's seeds with the champion's, and promotes its model if better.

    Returns the verdict, None where there was no champion, and what was promoted, None for nothing.
    Its other seeds are found among DVC's experiments. Raises ParamsError for an unknown experiment
    or one on another text, DataError where its model or the tracking store is not here.
    """
    experiment = experiments.read(name)
    rest = [finished for finished in experiments.read_finished() if finished.name != name]
    groups = groups_of([experiment, *rest])
    ours = groups[0].by_seed()
    try:
        store = Store(PROJECT)
    except Exception as error:
        raise DataError(f"the tracking store cannot be used: {reason(error)}") from None
    registered = f"{PROJECT.name}-{experiment.params.data.corpus}"
    champion = _champion(store.client, registered)
    verdict = None
    if champion is not None:
        setting, our_setting = json.loads(champion.tags["setting"]), experiment.setting()
        for key, value in setting.items():
            if key.startswith("data.") and value != our_setting.get(key):
                raise ParamsError(
                    f"{name}: its {key} is {our_setting.get(key)}, the champion's {value}; bits "
                    "per byte of two texts cannot be compared"
                )
        theirs = {int(seed): value for seed, value in json.loads(champion.tags["seeds"]).items()}
        # Seeds that were run since count too.
        for group in groups:
            if group.runs[0].setting() == setting:
                theirs |= group.by_seed()
        same = setting == our_setting
        verdict = Verdict("within noise", 0.0) if same else compare(theirs, ours)
        if verdict.word != "better":
            return verdict, None
    version = _register(store, registered, experiment, ours)
    return verdict, f"models:/{registered}@{ALIAS} is version {version}"


def _champion(client: Any, registered: str) -> Any:
    """The version that holds the alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(registered, ALIAS)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _register(
    store: Store, registered: str, experiment: Experiment, seeds: dict[int, float]
) -> str:
    """Logs the model with the run that made it, and gives the alias to a new version of it."""
    from mlflow.exceptions import MlflowException

    name = experiment.name
    with tempfile.TemporaryDirectory() as folder:
        model, served = _model_of(name, Path(folder)), Path(folder) / "served"
        code = _own_code(experiment, Path(folder))
        digest = WorkingFolder().md5(str(model))
        backfill_runs(PROJECT, store)
        runs = store.search(f"tags.`model.md5` = '{digest}'")
        if not runs:
            raise DataError(f"{name}: MLflow has no run with its model; gpt ui adds it")
        save(served, model, code)
        run = runs[0].info
        store.client.log_artifacts(run.run_id, str(served), "served")
    try:
        store.client.create_registered_model(registered)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        "experiment": name,
        "model.md5": str(digest),
        "setting": json.dumps(experiment.setting()),
        "seeds": json.dumps(seeds),
        "bits_per_byte": f"{experiment.bits_per_byte:.6f}",
    }
    created = store.client.create_model_version(
        registered, f"{run.artifact_uri}/served", run_id=run.run_id, tags=tags
    )
    # Last: the alias is on a complete version, or stays where it was.
    store.client.set_registered_model_alias(registered, ALIAS, created.version)
    return str(created.version)


def _model_of(name: str, folder: Path) -> Path:
    """The model folder of an experiment; of one that is not checked out, from DVC's cache."""
    files = experiments.files_of(name)
    if not isinstance(files, Commit):
        if "evaluate" not in Pipeline(files, load().model_dump()).valid():
            raise DataError("workspace: its results are not of these params and code; dvc repro")
        return MODEL
    from dvc.api import DVCFileSystem

    target = folder / "model"
    try:
        DVCFileSystem(rev=files.commit).get(MODEL.as_posix(), str(target), recursive=True)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{name}: its {MODEL} is not in DVC's cache ({reason}); dvc exp apply, dvc repro"
        ) from None
    return target


def _own_code(experiment: Experiment, folder: Path) -> Path | None:
    """The file that model.source names, as the experiment had it; None for gpt/model.py."""
    source = experiment.params.model_source
    if source == OUR_SOURCE:
        return None
    text = experiments.files_of(experiment.name).read(source)
    if text is None:
        raise DataError(
            f"{experiment.name}: model.source = {source} is not in its commit; git add it, and run "
            "the experiment again"
        )
    path = folder / "source.py"
    path.write_bytes(text)
    return path


def save(folder: Path, model: Path, code: Path | None = None) -> None:
    """Writes MLflow's own form of a model folder: its files, gpt/ and commands/served_model.py.

    `code` is the file of a model of its own, which may import gpt and what gpt needs.
    """
    with warnings.catch_warnings():
        # MLflow warns of its own classes, and would like an example and type hints, which would
        # cost the params.
        warnings.simplefilter("ignore")
        from mlflow.models import ModelSignature
        from mlflow.pyfunc import save_model
        from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

        params = [
            ParamSpec("temperature", "double", 0.7),
            ParamSpec("max_new_tokens", "long", 200),
            ParamSpec("seed", "long", 1337),
        ]
        save_model(
            folder,
            python_model=str(CODE),
            artifacts={"model": str(model.resolve())} | ({"source": str(code)} if code else {}),
            code_paths=[str(CODE.parent.parent / "gpt")],
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "prompt")]),
                outputs=Schema([ColSpec("string")]),
                params=ParamSchema(params),
            ),
            # Named here, since MLflow would load the model in a process of its own to find out.
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
        )


@app.command("promote")
def promote_champion(
    experiment: Annotated[
        str, typer.Argument(help="A name, a commit, or workspace.")
    ] = "workspace",
) -> None:
    """Make an experiment MLflow's champion, if its seeds show it better beyond noise."""
    with at_root():
        verdict, promoted = promote(experiment)
        if verdict:
            sure = "" if verdict.p is None else f" (p = {verdict.p:.3f}, {verdict.test})"
            print(f"{verdict.difference:+.4f} bits per byte: {verdict.word}{sure}")
            if verdict.word == "unknown":
                print("noise is known from two seeds on: dvc exp run --queue -S seed=1,2,3 -S ...")
        if promoted is None:
            print("not promoted: the champion stays")
            raise typer.Exit(1)
        print(f"promoted: {promoted}")
