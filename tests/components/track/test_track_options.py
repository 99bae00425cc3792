import subprocess
import sys

import pytest

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.track.options import track_options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mlflow_uri": "sqlite:///mlflow.db"}, "mlflow_uri = 'sqlite:///mlflow.db': not an address such as"),
        ({"mlflow_uri": "databricks"}, "mlflow_uri = 'databricks': not an address such as"),
        ({"mlflow_uri": "http://"}, "mlflow_uri = 'http://': not an address such as"),
        ({"mlflow_uri": "http://h:5000/' == '"}, "not an address such as"),
        ({"mlflow_experiment": ""}, "mlflow_experiment = ''"),
        ({"mlflow_experiment": "it's"}, 'mlflow_experiment = "it\'s"'),
        ({"registered_model": "models/a"}, "registered_model = 'models/a'"),
        ({"alias": "1st"}, "alias = '1st'"),
        ({"kfp_ui": "kubeflow"}, "kfp_ui = 'kubeflow': not an address such as"),
    ],
)
def test_bad_values(values: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput) as error:
        track_options(**{"mlflow_uri": "http://127.0.0.1:5000", **values})
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["mlflow_uri", "kfp_ui"])
@pytest.mark.parametrize("address", ["https://ann:s3cret@mlflow", "https://s3cret@mlflow", "ftp://ann:s3cret@mlflow"])
def test_passwords_are_refused_and_never_shown(name: str, address: str) -> None:
    with pytest.raises(InvalidInput) as error:
        track_options(**{"mlflow_uri": "http://127.0.0.1:5000", name: address})
    assert "MLFLOW_TRACKING_USERNAME" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_command_line_refuses_a_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:s3cret@mlflow")
    result = subprocess.run(
        [sys.executable, "pipelines/e2e.py", "--run"], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: mlflow_uri: has a user name or password in it")
    assert "s3cret" not in result.stdout + result.stderr


def test_mlflow_is_not_loaded_when_it_is_not_used() -> None:
    code = (
        "import sys, kfp_image_classification.pipelines.e2e, kfp_image_classification.pipelines.runner.command_line; "
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
