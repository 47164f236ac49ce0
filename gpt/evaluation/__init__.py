"""Scores of a trained model, and what they mean."""
