"""`gpt export`: the trained model in a format that another project reads."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from safetensors import SafetensorError

from commands.root import ModelFolder, at_root
from gpt.checkpoint import load_model
from gpt.errors import CheckpointError
from gpt.interop.gguf import write_gguf
from gpt.interop.huggingface import write_hugging_face
from stages.params import MODEL, load

app = typer.Typer(add_completion=False)


@app.command("export")
def export_model(
    to: Annotated[
        Literal["hf", "gguf"], typer.Option(help="For transformers (hf) or llama.cpp (gguf).")
    ],
    model: ModelFolder = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write; else export/LAYOUT.", resolve_path=True),
    ] = None,
) -> None:
    """Write the trained model in the format of another project."""
    with at_root():
        trained = load_model(model or MODEL, load().model_source)
        folder = out or Path("export") / to
        write = write_hugging_face if to == "hf" else write_gguf
        try:
            files = write(trained, folder)
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(
                f"{folder}: could not be written ({reason}); choose another --out"
            ) from None
        print("\n".join(str(file) for file in files))
