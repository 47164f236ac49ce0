"""The five stages of dvc.yaml, one thin module each: params in, a call of the library, outputs out.

Not here: what a stage computes (gpt), DVC and MLflow (repro). Start with train.py; params.py is the
schema of params.yaml.
"""
