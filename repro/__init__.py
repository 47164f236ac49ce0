"""The seam between DVC and MLflow, for any project: stages, their lock, and runs to compare.

Not here: tensors, texts, or a key of params.yaml; what differs is told by a Project.
Start with run_stage.py, which every stage of dvc.yaml enters; tracking/ is what MLflow shows."""
