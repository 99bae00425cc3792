"""`make bench-gpu`: images a second on one GPU, of our trainer, of Keras' fit, and of a constant batch.

What XLA compiles takes most of a minute to get ready. So fit and the constant batch get ready side by side, and are
measured one after the other; then our trainer, which is alone from its start.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.train.run import write_shards
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers.gpus import installed_gpus, visible_gpus
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job

IMAGES, SHAPE = 50_000, (32, 32, 3)
WARM_UP = 2
LIMIT_SECONDS = 300
RESULTS = Path(__file__).with_name("results.json")
Results = dict[str, dict[str, list[float]]]
OURS, FIT, BOUND = "ours", "Keras' fit", "constant batch, XLA"


@dataclass(frozen=True)
class Setting:
    """What is trained: a model variant, images in a batch, and what its layers compute in."""

    model: str
    batch_size: int
    compute_dtype: str

    @property
    def title(self) -> str:
        return f"{self.model}, batch {self.batch_size:,}, {self.compute_dtype}"


SETTINGS = [
    Setting("resnet", 256, "float32"),
    Setting("resnet", 256, "bfloat16"),
    Setting("resnet", 1024, "bfloat16"),
    Setting("cnn", 64, "float32"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="measured epochs (default 20)")
    parser.add_argument("--settings", type=int, nargs="+", default=[0, 1, 2, 3], help="which settings (default all)")
    arguments = parser.parse_args()
    if why := reason_to_skip():
        print(f"skipped: {why}")
        return
    chosen = [SETTINGS[index] for index in arguments.settings]
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        results: Results = {setting.title: {} for setting in chosen}
        for setting, way, rates in measured(chosen, Path(scratch), arguments.epochs):
            # At once: a machine that is lent may be gone at any time.
            print(f"{setting.title}, {way}: {statistics.median(rates):,.0f} images/s", flush=True)
            results[setting.title][way] = rates
            RESULTS.write_text(json.dumps(results, indent=2), encoding="utf-8")
    console = Console(soft_wrap=True, markup=False, emoji=False)
    console.print(table(results))
    console.print(f"wrote {RESULTS}")


def reason_to_skip() -> str:
    """Why nothing can be measured here; empty where it can."""
    if not visible_gpus(installed_gpus(), os.environ):
        return "there is no NVIDIA GPU here, or none that may be used (nvidia-smi -L, CUDA_VISIBLE_DEVICES)"
    seen = subprocess.run(
        [sys.executable, "-c", "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    ).stdout.split()
    if seen[-1:] == ["0"]:
        return "TensorFlow cannot use the GPU that is here: pip install 'tensorflow[and-cuda]'"
    return ""


def prepare(folder: Path) -> None:
    """Colour images of noise, and labels by chance, for all three."""
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (IMAGES, *SHAPE), np.uint8), random.integers(0, 10, IMAGES)
    np.savez(folder / "data.npz", pixels=pixels, labels=labels)
    write_shards(pixels, labels, 1, folder / "shards")


def ours(setting: Setting, folder: Path, epochs: int) -> list[float]:
    """Our trainer, one worker, as the train component runs it."""
    with tempfile.TemporaryDirectory() as scratch:
        options = TrainOptions(
            model_type=setting.model,
            workers=1,
            epochs=epochs + WARM_UP,
            batch_size=setting.batch_size,
            learning_rates="0:1e-3",
            seed=0,
            compute_dtype=setting.compute_dtype,
            devices="gpu",
            checkpoint_seconds=1000,
        )
        job = TrainingJob(options=options, dataset=str(folder / "shards"), directory=str(Path(scratch, "job")))
        history = run_job(job, Path(scratch, "model"), stage_log("bench")).history
    return [row["images_per_second"] for row in history[WARM_UP:]]


def measured(settings: list[Setting], folder: Path, epochs: int) -> Iterator[tuple[Setting, str, list[float]]]:
    """Measures Keras' fit and the bound, whose whole step is one program of XLA without input; then our trainer."""
    fit = ["benchmarks.gpu.keras_fit", "--data", str(folder / "data.npz"), "--epochs", str(epochs)]
    bound = ["benchmarks.train.constant_batch", "--shape", *map(str, SHAPE), "--seconds", "5", "--xla", "--wait"]
    started = [
        (setting, way, start(setting, command)) for setting in settings for way, command in ((FIT, fit), (BOUND, bound))
    ]
    try:
        for *_, process in started:
            wait_until_ready(process)
        for setting, way, process in started:
            output, _ = process.communicate("\n", timeout=LIMIT_SECONDS)
            yield setting, way, [float(line.split()[1]) for line in output.splitlines() if line.startswith("rate ")]
    finally:
        for *_, process in started:
            process.kill()
    for setting in settings:
        yield setting, OURS, ours(setting, folder, epochs)


def start(setting: Setting, command: list[str]) -> subprocess.Popen[str]:
    given = [
        "--model",
        setting.model,
        "--batch-size",
        str(setting.batch_size),
        "--compute-dtype",
        setting.compute_dtype,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", *command, *given],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    if not any(line == "ready\n" for line in process.stdout):
        sys.exit(f"it failed before it was ready: {process.args!r}")


def table(results: Results) -> Table:
    shown = Table(title="images/s on one GPU, medians", title_justify="left")
    for heading in ("", OURS, FIT, BOUND, "ours / bound"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for title, samples in results.items():
        of = {way: statistics.median(values) for way, values in samples.items()}
        shown.add_row(title, *(f"{of[way]:,.0f}" for way in (OURS, FIT, BOUND)), f"{of[OURS] / of[BOUND]:.2f}")
    return shown


if __name__ == "__main__":
    main()
