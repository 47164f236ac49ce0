"""`gpt export`: the trained model in a format that another project reads."""

from pathlib import Path

from gpt.checkpoint import load_model
from gpt.interop.gguf import write_gguf
from gpt.interop.huggingface import write_hugging_face
from stages.params import load

WRITERS = {"hf": write_hugging_face, "gguf": write_gguf}


def export(to: str, model: Path, out: Path | None) -> list[Path]:
    """Writes the model in the folder `model` to `out`, else export/hf or export/gguf.

    Returns the files. Raises CheckpointError for a model or tokenizer that cannot be exported.
    """
    trained = load_model(model, load().model_source)
    return WRITERS[to](trained, out or Path("export") / to)
