"""One MLflow run per execution of the pipeline."""
