"""What a process of this package takes from its environment, and what it decides itself.

On a user's machine the shell may hold what was meant for another program: a Keras backend, flags of XLA, another
Python's packages. A training must not depend on it. In a pod, and on Vertex AI, somebody wrote every variable down for
this very process, so what can be chosen at all is theirs. docs/running.md has the list.
"""

import os
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.direct_network import exempt_from_proxies
from kfp_image_classification.components.step.process_owner import OWNER_VARIABLE

# Set in every container, by the kubelet and by Vertex AI's custom training.
_WRITTEN_DOWN = ("KUBERNETES_SERVICE_HOST", "CLOUD_ML_PROJECT_ID")
# Change what TensorFlow, Keras and their numerical libraries compute, or with how many threads.
_OF_LIBRARIES = re.compile(
    r"(TF|TF2|KERAS|XLA|OMP|GOMP|KMP|MKL|OPENBLAS|GOTO|BLIS|NUMEXPR|ONEDNN|DNNL)_|"
    r"(MPLBACKEND|NVIDIA_TF32_OVERRIDE|PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION)$"
)
_OF_PYTHON = re.compile(r"PYTHON[A-Z]")
_TAKEN = re.compile(
    r"TF_CONFIG$|TF_CPP_|TF_FORCE_GPU_ALLOW_GROWTH$|TF_GPU_ALLOCATOR$|MPLCONFIGDIR$|"
    r"PYTHON(HOME|PLATLIBDIR|USERBASE|NOUSERSITE|DONTWRITEBYTECODE|PYCACHEPREFIX|FAULTHANDLER)$"
)
# The folder that a user's own KERAS_HOME names: for what keras.applications downloads, and nothing else.
PRETRAINED_VARIABLE = "PRETRAINED_HOME"
# Where CUDA is installed is a fact, and no choice of how to compute.
_CUDA_FOLDER = re.compile(r"--xla_gpu_cuda_data_dir=\S+")


def written_down(environment: Mapping[str, str]) -> bool:
    """Whether a manifest, and no shell, decided what is in an environment; a run from a notebook's pod has a shell."""
    return any(environment.get(name) for name in _WRITTEN_DOWN) and OWNER_VARIABLE not in environment


def own_environment(environment: Mapping[str, str], cores: int) -> dict[str, str]:
    """The environment in which a process of this package, and those that it starts, run.

    Args:
        environment: As it was found.
        cores: How many threads are to compute.
    """
    free = written_down(environment)
    own = {name: value for name, value in environment.items() if free or _is_taken(name)}
    own = {name: value for name, value in own.items() if not name.startswith("KERAS_")}
    if (home := environment.get("KERAS_HOME", os.devnull)) != os.devnull:
        own[PRETRAINED_VARIABLE] = home
    own.pop("TF_USE_LEGACY_KERAS", None)
    if not free and (folder := _CUDA_FOLDER.findall(environment.get("XLA_FLAGS", ""))):
        own["XLA_FLAGS"] = " ".join(folder)
    decided = {
        # Nothing is found there and nothing can be written: no keras.json, and no need of a home.
        "KERAS_HOME": os.devnull,
        "KERAS_BACKEND": "tensorflow",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        # A file of the folder that a person is in must not stand in for a package.
        "PYTHONSAFEPATH": "1",
    }
    chosen = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # TensorFlow, and its data sets, would look for Google's metadata server.
        **({} if environment.get("CLOUD_ML_PROJECT_ID") else {"NO_GCE_CHECK": "true"}),
        "TF_NUM_INTRAOP_THREADS": str(cores),
        "TF_NUM_INTEROP_THREADS": str(cores),
        "OMP_NUM_THREADS": str(cores),
        # Else the first process to come takes all of a GPU's memory, and evaluate fails while a model trains.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    own = {**chosen, **own, **decided}
    own.pop("PYTHONIOENCODING", None)  # goes before UTF-8 mode
    if "PYTHONPATH" in environment and not free:
        own["PYTHONPATH"] = _installed_first(environment["PYTHONPATH"])
    exempt_from_proxies(own)
    return own


def settle_environment() -> None:
    """Makes the environment of this process its own; to be called before TensorFlow or Keras is loaded."""
    own = own_environment(os.environ, usable_cores())
    if "PYTHONWARNINGS" in os.environ.keys() - own.keys():
        _warn_as_python_does()
    if own.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
        foreign = [entry for entry in sys.path if entry in map(os.path.abspath, _entries(os.environ["PYTHONPATH"]))]
        sys.path[:] = [*(entry for entry in sys.path if entry not in foreign), *foreign]
    for name in os.environ.keys() - own.keys():
        del os.environ[name]
    os.environ.update(own)
    # Where TMPDIR cannot be used, Python finds another folder; the shell that starts a step does not.
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # nothing can be written anywhere, and a process that need not will do without
        return
    if "TMPDIR" in os.environ:
        os.environ["TMPDIR"] = temporary
    try:
        home = Path.home()
    except RuntimeError:  # a user without a name, as OpenShift makes them, and nobody said where home is
        os.environ["HOME"] = temporary
        home = Path(temporary)
    if not os.access(home, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(Path(temporary, f"matplotlib-{os.getuid()}")))


def _is_taken(name: str) -> bool:
    return bool(_TAKEN.match(name)) or not (_OF_LIBRARIES.match(name) or _OF_PYTHON.match(name))


def _installed_first(python_path: str) -> str:
    """What is installed with the package goes before other Pythons' packages; what is only there is still found."""
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return os.pathsep.join(dict.fromkeys([*installed, *_entries(python_path)]))


def _entries(python_path: str) -> list[str]:
    return [entry for entry in python_path.split(os.pathsep) if entry]


def _warn_as_python_does() -> None:
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
