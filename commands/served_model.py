"""The model as MLflow serves it: prompts in, texts out. MLflow copies this file beside the model.

Not imported here by anything: MLflow runs it when it loads the model ("models from code"), with a
copy of gpt/ on the path, and no pickle takes part.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from gpt.checkpoint import load_model, read_run_config
from gpt.config import OUR_SOURCE
from gpt.generation import Sampling, generate

# A server must not be kept busy for hours by one request.
MAX_TOKENS = 10_000
MAX_PROMPTS = 64


class TextModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types
    """A column `prompt` to a list of texts, each with its prompt at the beginning."""

    def load_context(self, context: Any) -> None:
        folder, code = Path(context.artifacts["model"]), context.artifacts.get("source")
        # Only code that was promoted with the model is run, whatever its config.json names.
        source = read_run_config(folder / "config.json").model.source if code else OUR_SOURCE
        self.trained = load_model(folder, source, Path(code) if code else None)

    # Type hints here would drop the params from the signature.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Same prompt, params and seed, same text, whatever other prompts there are."""
        params = params or {}
        tokens = int(params.get("max_new_tokens", 200))
        temperature = float(params.get("temperature", 0.7))
        if not 0 <= tokens <= MAX_TOKENS or not temperature >= 0:
            raise ValueError(f"max_new_tokens is 0 to {MAX_TOKENS}, temperature 0 or more")
        prompts = [str(prompt) for prompt in pd.DataFrame(model_input)["prompt"]]
        if len(prompts) > MAX_PROMPTS:
            raise ValueError(f"{len(prompts)} prompts; at most {MAX_PROMPTS} at a time")
        sampling = Sampling(max_new_tokens=tokens, temperature=temperature, top_p=0.9)
        seed = int(params.get("seed", 1337))
        model, tokenizer = self.trained.model, self.trained.tokenizer
        samples = [generate(model, tokenizer, p, sampling, seed=seed) for p in prompts]
        return [sample.text for (sample,) in samples]


mlflow.models.set_model(TextModel())
