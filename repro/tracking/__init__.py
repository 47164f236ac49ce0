"""One MLflow run per execution of the pipeline, complete even where DVC skipped a stage.

Not here: whether a result is still valid (repro/lockfile.py), errors of a stage (run_stage.py).
Start with run.py, what a stage sees; then contents.py (what to log) and store.py (where to)."""
