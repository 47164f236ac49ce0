"""The two exceptions that run_stage ends a stage with in one line, without a traceback."""


class UserError(Exception):
    """A fault that the user can fix; the message: where, the value, what is wrong, what to do."""


class Interrupted(Exception):
    """A signal asked the stage to stop; its state is saved, and the same command resumes it."""
