"""What `models` takes: a variant or a user's own function, with settings of its own, as text.

    resnet
    resnet:batch_size=64,learning_rates=cosine:2e-3
    my_package.models:build:epochs=40
    {"model": "resnet", "batch_size": 64, "class_weights": {"cat": 2}}

The text is the model's name everywhere: in the ranking, on the pages, in MLflow and in the names of jobs. So two
recipes for one architecture are two models.
"""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

# A colon and a name that no equals sign follows belong to the path of a function.
_TEXT = re.compile(r"([A-Za-z_][\w.]*(?::[A-Za-z_]\w*(?!\w*\s*=))?)(?::(.*))?", re.DOTALL)
_NEXT_SETTING = re.compile(r",(?=\s*[A-Za-z_]+\s*=)")
EXPECTED = (
    "expected a model, or one with settings, such as resnet:batch_size=64,learning_rates=cosine:2e-3, or as JSON, "
    'such as {"model": "resnet", "batch_size": 64}'
)


@dataclass(frozen=True)
class ModelSettings:
    """One of `models`, taken apart.

    Attributes:
        architecture: The variant, or the import path of a function, `my_package.models:build`.
        settings: Values of parameters of train, by their names; for this model they win over the others.
    """

    architecture: str
    settings: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "ModelSettings":
        """Reads either form.

        Raises:
            ValueError: Saying what is expected.
        """
        if text.lstrip().startswith("{"):
            return cls._of_json(text)
        match = _TEXT.fullmatch(text.strip())
        if not match or match[2] == "":
            raise ValueError(EXPECTED)
        pairs = [pair.partition("=") for pair in _NEXT_SETTING.split(match[2])] if match[2] else []
        settings = {name.strip(): value.strip() for name, _, value in pairs}
        if not all(sign and name.strip().isidentifier() for name, sign, _ in pairs) or len(settings) < len(pairs):
            raise ValueError(f"{EXPECTED}; each setting once")
        return cls(match[1], settings)

    @classmethod
    def _of_json(cls, text: str) -> "ModelSettings":
        try:
            values = json.loads(text)
            architecture = values.pop("model")
        except (ValueError, KeyError):
            raise ValueError(EXPECTED) from None
        found = cls(str(architecture), {name: _as_text(value) for name, value in values.items()})
        if cls.parse(found.text) != found:
            raise ValueError(f"{EXPECTED}; a value must not look like a further setting")
        return found

    @property
    def text(self) -> str:
        """The shorter form."""
        settings = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.architecture}:{settings}" if settings else self.architecture

    @property
    def is_own(self) -> bool:
        """Whether the architecture is a user's own function."""
        return ":" in self.architecture


def own_package(architecture: str) -> Path | None:
    """Where the package, or the single module, of a user's own model lies, as a worker on this machine finds it.

    Args:
        architecture: `my_package.models:build`.

    Returns:
        The folder or file; None where there is none. No code of it is run.
    """
    top = architecture.split(":")[0].split(".")[0]
    spec = PathFinder.find_spec(top, [*sys.path, str(Path.cwd())])
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def file_name(model: str) -> str:
    """A model's name as that of a file: itself where it can be one, else what of it can, and a checksum."""
    if re.fullmatch(r"\w[\w.-]*", model):
        return model
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.=-]+', '-', model)[:60].strip('-.')}-{digest}"
