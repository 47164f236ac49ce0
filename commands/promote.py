"""`gpt promote`: the best model so far, in MLflow's registry under the alias `champion`.

There is one registered model for each corpus. An experiment takes the alias when its seeds show it
better than the champion's beyond noise (gpt/evaluation/significance.py), or when there is no
champion yet. The champion's scores, by seed, stand in the version's tags. `mlflow models serve`
answers with text from it; commands/served_model.py is what answers.
"""

import json
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from commands import experiments
from commands.compare import groups_of
from commands.experiments import Experiment
from commands.root import at_root
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


@dataclass(frozen=True)
class Promotion:
    """What became of an experiment: `version` is None where it was not promoted."""

    name: str
    verdict: Verdict | None  # None: there was no champion
    version: str | None


def promote(name: str) -> Promotion:
    """Compares the experiment's seeds with the champion's, and promotes its model if better.

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
        setting = json.loads(champion.tags["setting"])
        differ = [key for key in setting if key.startswith("data.")
                  and setting[key] != experiment.setting().get(key)]  # fmt: skip
        if differ:
            raise ParamsError(
                f"{name}: its {differ[0]} is {experiment.setting().get(differ[0])}, the champion's "
                f"{setting[differ[0]]}; bits per byte of two texts cannot be compared"
            )
        theirs = {int(seed): value for seed, value in json.loads(champion.tags["seeds"]).items()}
        # Seeds that were run since count too.
        for group in groups:
            if group.runs[0].setting() == setting:
                theirs |= group.by_seed()
        is_champion = setting == experiment.setting()
        verdict = Verdict("within noise", 0.0) if is_champion else compare(theirs, ours)
        if verdict.word != "better":
            return Promotion(registered, verdict, None)
    return Promotion(registered, verdict, _register(store, registered, experiment, ours))


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
        model = _model_of(name, Path(folder))
        digest = WorkingFolder().md5(str(model))
        backfill_runs(PROJECT, store)
        runs = store.search(f"tags.`model.md5` = '{digest}'")
        if not runs:
            raise DataError(f"{name}: MLflow has no run with its model; gpt ui adds it")
        save(Path(folder) / "served", model)
        run = runs[0].info
        store.client.log_artifacts(run.run_id, str(Path(folder) / "served"), "served")
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
        DVCFileSystem(rev=files.commit).get(str(MODEL), str(target), recursive=True)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{name}: its {MODEL} is not in DVC's cache ({reason}); dvc exp apply, dvc repro"
        ) from None
    return target


def save(folder: Path, model: Path) -> None:
    """Writes MLflow's own form of a model folder: its files, gpt/ and commands/served_model.py."""
    with warnings.catch_warnings():
        # Importing it warns of MLflow's own classes.
        warnings.simplefilter("ignore")
        from mlflow.models import ModelSignature
        from mlflow.pyfunc import save_model
        from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "prompt")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema(
            [
                ParamSpec("temperature", "double", 0.7),
                ParamSpec("max_new_tokens", "long", 200),
                ParamSpec("seed", "long", 1337),
            ]
        ),
    )
    with warnings.catch_warnings():
        # It would like type hints, which would cost the params, and an example to try.
        warnings.simplefilter("ignore")
        save_model(
            folder,
            python_model=str(CODE),
            artifacts={"model": str(model.resolve())},
            code_paths=[str(CODE.parent.parent / "gpt")],
            signature=signature,
            # Named here, since MLflow would load the model in a process of its own to find out.
            pip_requirements=[
                f"{package}=={metadata.version(package)}" for package in REQUIREMENTS
            ],
        )


@app.command("promote")
def promote_champion(
    experiment: Annotated[
        str, typer.Argument(help="A name, a commit, or workspace.")
    ] = "workspace",
) -> None:
    """Make an experiment MLflow's champion, if its seeds show it better beyond noise."""
    with at_root():
        done = promote(experiment)
        verdict = done.verdict
        if verdict is not None:
            sure = "" if verdict.p is None else f" (p = {verdict.p:.3f}, {verdict.test})"
            print(f"{verdict.difference:+.4f} bits per byte: {verdict.word}{sure}")
        if done.version is None:
            if verdict is not None and verdict.word == "unknown":
                print("noise is known from two seeds on: dvc exp run --queue -S seed=1,2,3 -S ...")
            print("not promoted: the champion stays")
            raise typer.Exit(1)
        print(f"promoted: models:/{done.name}@{ALIAS} is version {done.version}")
