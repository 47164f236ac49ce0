"""Faster forms of formulas that stand in gpt/model.py."""
