"""Where vLLM finds its models: at the hub, in a folder, or in one made for a shape."""

import shutil
import tempfile
from pathlib import Path

from sweeper import shapes
from sweeper.engines.vllm_command import architecture_file
from sweeper.engines.vllm_settings import ARCHITECTURES, from_shape
from sweeper.spec import ModelSpec, Settings
from sweeper.speculation import draft_model


class Models:
    """The model of a configuration and its draft; folders that it makes are its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder: Path | None = None

    def places(self) -> tuple[str, str]:
        """Of the model and its draft the hub's name or a folder; of a shape, one made for it.

        Without a draft the second is empty.
        """
        draft = draft_model(self._settings)
        model = self._place_of(self._settings.model, "model")
        return model, "" if draft is None else self._place_of(draft, "draft")

    def remove(self) -> None:
        """Folders that were made are gone."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _place_of(self, model: ModelSpec, name: str) -> str:
        text = architecture(model)
        if text is None:
            return str(model.id)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sweeper-model-"))
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(text)
        return str(folder)


def architecture(model: ModelSpec) -> str | None:
    """The file that a shape's model is built from; `None` of a model that is named."""
    if model.shape is None or not from_shape(model):
        return None
    kind = shapes.architecture(model.shape)["model_type"]
    return architecture_file(model.shape, ARCHITECTURES[kind])
