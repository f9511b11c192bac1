"""The files of what is served: models with experts that decode alone."""

from collections.abc import Sequence
from pathlib import Path

from prophet_moe.catalog import model_names
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.settings.experiment import SEE_KEYS, unknown_name
from studies.dynamic_batching.study import ServedModel

KEY = "studies.dynamic_batching.served"


def model_files(served: Sequence[ServedModel], folder: Path, file: str) -> list[Path]:
    """Return the file of every model, below `folder` or its current/; one that cannot be served is a UserError.

    `file` is the file of settings that names them.
    """
    known = {name: at / f"{name}.yaml" for at in (folder / "current", folder) for name in model_names(at)}
    for number, each in enumerate(served):
        key = f"{KEY}[{number}].model"
        if each.model not in known:
            raise UserError(file, f"{key}: {unknown_name(each.model, known)}", SEE_KEYS)
        arch = load_model(known[each.model]).architecture
        if arch.moe is None or arch.encoder:
            kind = "dense" if arch.moe is None else "an encoder-decoder"
            problem = f"{key}: {each.model} is {kind}, expected a decoder with routed experts"
            raise UserError(file, problem, SEE_KEYS)
    return [known[each.model] for each in served]
