"""The course's checker: what `gpt workshop` checks of a learner's files, and the course's notebook.
Not here: the course itself (docs/1-tokenization.md and on), the learner's files (scratchpad/).
Start with course.py, then the checks of a part, such as tokenizer_checks.py.
"""
