"""The console command `gpt`: which command is in which file.

A command's file is imported when the command is called: `gpt --help` would else wait for PyTorch,
pandas and MLflow. Help is plain text: to import Rich, which frames it, takes longer than the rest.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from repro.surroundings import print_utf8

COMMANDS = {  # name: (module that has it in its `app`, help)
    "ui": ("commands.runs", "Open MLflow's pages: one run per experiment."),
    "compare": ("commands.compare", "Which experiment is better, beyond the noise of seeds."),
    "plan": ("commands.plan", "What a training takes, before it starts."),
    "sample": ("commands.sample", "Print text as the model generates it."),
    "scaling": ("commands.scaling", "How the loss falls as models grow."),
    "promote": ("commands.promote", "Make an experiment MLflow's champion, if it is better."),
    "result": ("commands.result", "The present result in a few lines, as make run ends."),
    "report": ("commands.report", "Write one page of the present result: report.html."),
    "submit": ("commands.competition", "Submit a poem, with all that it came from."),
    "verify": ("commands.competition", "Check a submission; --retrain is the proof."),
    "leaderboard": ("commands.competition", "Verify a folder's submissions and rank them."),
    "benchmark": ("commands.benchmark", "Score the model on HellaSwag, LAMBADA, WikiText, ..."),
    "export": ("commands.export", "Write the model for transformers or llama.cpp."),
    "workshop": ("workshop.cli", "Write it yourself: docs/index.md is the course."),
}


def load_command(name: str) -> Any:
    """The command or group of that name, from its file."""
    app = import_module(COMMANDS[name][0]).app
    app.rich_markup_mode = None
    command: Any = typer.main.get_command(app)
    return getattr(command, "commands", {}).get(name, command)


class LateGroup(TyperGroup):
    """A group that imports a command when it is called, and lists it by COMMANDS alone."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else listed, rest


app = typer.Typer(
    cls=LateGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def gpt() -> None:
    """Train your own GPT: dvc repro runs the pipeline, gpt does what is not a stage."""
    print_utf8()


if __name__ == "__main__":
    app()
