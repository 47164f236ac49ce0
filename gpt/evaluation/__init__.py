"""Measures trained models: scores, baselines, benchmarks, diagnostics, scaling laws and plots.
Not here: computing logits (gpt/model.py), and which files hold the results (stages, commands).
Start with scoring.py, then baselines.py."""
