"""Faster forms of formulas that stand in gpt/model.py, with gradients of their own.

Not here: a formula that model.py lacks, or the choice of the form (model.py). Start with cpu.py.
"""
