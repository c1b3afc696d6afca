"""Model source: a folder that all machines of a network share."""

from collections.abc import Mapping
from pathlib import Path

from mellea_cli.backends.security import NetworkPolicy
from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.download import PartialFile, Progress, ProgressCallback, SourceFailed

VARIABLE = "EXAMPLE_MODELS"


class FolderSource:
    """The folder that the variable `EXAMPLE_MODELS` names. A folder is no network, so the policy does not matter."""

    name = "shared folder"

    def __init__(self, environ: Mapping[str, str], network: NetworkPolicy) -> None:
        self._folder = environ.get(VARIABLE, "")

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        path = Path(self._folder) / model.file
        if not self._folder or not path.is_file():
            raise SourceFailed(f"{VARIABLE} names no folder with {model.file}")
        with path.open("rb") as file:
            file.seek(partial.received)
            while data := file.read(1 << 20):
                partial.append(data)
                progress(Progress("fetching", partial.received, model.size, self.name))
