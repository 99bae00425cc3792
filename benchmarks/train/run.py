"""`make bench-train`: images a second of our trainer, of the way it replaces, and of the bound, in one run."""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers.machine import free_ports
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

IMAGES = 20_000
WARM_UP = 2
BOUND_SECONDS = 6
Samples = dict[str, list[float]]
RESULTS = Path(__file__).with_name("results.json")
PYTORCH = Path(".venv/pytorch/bin/python")
CORES = sorted(os.sched_getaffinity(0))[:2]


@dataclass(frozen=True)
class Setting:
    """What is trained: a model variant, an image shape, images in a worker's batch, and measured epochs."""

    title: str
    model: str
    shape: tuple[int, int, int]
    batch_size: int
    epochs: int


Measure = Callable[[Setting, Path], list[float]]
SETTINGS = [
    Setting("small CNN, the original's batch of 64", "cnn_small", (28, 28, 1), 64, 5),
    Setting("small CNN, the recommended batch of 256", "cnn_small", (28, 28, 1), 256, 6),
    Setting("ten times the compute (32 x 32 colour, three convolutions), batch of 64", "cnn", (32, 32, 3), 64, 3),
]


def digits(shape: tuple[int, int, int], count: int = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """The built-in digits, repeated, padded and coloured to the shape."""
    options = IngestOptions(dataset="mnist_5k", validation_share=0.1, workers=2, seed=0)
    train = open_source(options).splits["train"]
    images = [*train.read(0, len(train))]
    edge = (shape[0] - 28) // 2
    pixels = np.stack([np.pad(image, ((edge, edge), (edge, edge), (0, 0))).repeat(shape[2], 2) for image in images])
    places = np.arange(count) % len(images)
    return pixels[places], train.labels()[places]


def prepare(shape: tuple[int, int, int], folder: Path) -> None:
    pixels, labels = digits(shape)
    np.savez(folder / "data.npz", pixels=pixels, labels=labels)
    write_shards(pixels, labels, 2, folder / "shards")


def write_shards(pixels: np.ndarray, labels: np.ndarray, workers: int, folder: Path) -> None:
    """Ingests images of ten classes for so many workers."""
    splits = {"train": PixelExamples(pixels, labels), "test": PixelExamples(pixels[:200], labels[:200])}
    source = Source("images", "1", [str(number) for number in range(10)], pixels.shape[1:], splits)
    options = IngestOptions(dataset="images", validation_share=0.01, workers=workers, seed=0)
    write_dataset(source, options, folder, stage_log("bench"))


def rates(output: str) -> list[float]:
    return [float(line.split()[1]) for line in output.splitlines() if line.startswith("rate ")]


def pinned(
    commands: list[list[str]],
    environments: list[dict[str, str]],
    python: str = sys.executable,
    cores: Sequence[int] = CORES,
) -> list[str]:
    """Runs one process a core at the same time, and returns what they printed."""
    processes = []
    for core, command, environment in zip(cores, commands, environments, strict=True):
        process = subprocess.Popen(
            [python, "-m", *command],
            env={**os.environ, **environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        os.sched_setaffinity(process.pid, {core})
        processes.append(process)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{commands[0]} failed")
    return outputs


def original(setting: Setting, folder: Path) -> list[float]:
    """(a) Two one-core workers, the original's way."""
    arguments = ["--data", str(folder / "data.npz"), "--model", setting.model]
    arguments += ["--batch-size", str(setting.batch_size), "--epochs", str(setting.epochs + WARM_UP)]
    arguments += ["--steps", str(max(20, 70 * 64 // setting.batch_size))]
    return rates(original_workers(arguments))[WARM_UP:]


def original_workers(arguments: list[str]) -> str:
    """Runs two one-core workers the original's way, and returns what the first one printed."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    command = ["benchmarks.train.original", *arguments]
    configs = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    environments = [{"TF_CONFIG": json.dumps(config), "TF_USE_LEGACY_KERAS": "1"} for config in configs]
    return pinned([command, command], environments)[0]


def pytorch(setting: Setting, folder: Path) -> list[float]:
    """(e) Two one-core workers of PyTorch's DistributedDataParallel."""
    command = ["benchmarks.train.pytorch", "--data", str(folder / "data.npz"), "--model", setting.model]
    command += ["--batch-size", str(setting.batch_size), "--epochs", str(setting.epochs + WARM_UP)]
    command += ["--steps", str(max(20, 70 * 64 // setting.batch_size))]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0]), "WORLD_SIZE": "2"}
    environments = [{**meeting, "RANK": str(index)} for index in (0, 1)]
    return rates(pinned([command, command], environments, str(PYTORCH))[0])[WARM_UP:]


def train(options: TrainOptions, shards: Path, scratch: Path) -> list[dict[str, float]]:
    """Trains as the train component does, and returns what is known of each epoch."""
    log = stage_log("bench")
    log.setLevel("WARNING")
    job = TrainingJob(options=options, dataset=str(shards), directory=str(scratch / "job"))
    return run_job(job, scratch / "model", log).history


def ours(workers: int, gradient_dtype: str = "float32", compute_dtype: str = "float32") -> Measure:
    """(b) Our trainer with two one-core workers, or (c) as one process with both cores and the same global batch."""

    def measure(setting: Setting, folder: Path) -> list[float]:
        with tempfile.TemporaryDirectory() as scratch:
            options = TrainOptions(
                model_type=setting.model,
                workers=workers,
                epochs=setting.epochs + WARM_UP,
                batch_size=setting.batch_size * 2 // workers,
                learning_rates="0:1e-3",
                seed=0,
                gradient_dtype=gradient_dtype,
                compute_dtype=compute_dtype,
                checkpoint_seconds=1000,
            )
            history = train(options, folder / "shards", Path(scratch))
        return [row["images_per_second"] for row in history[WARM_UP:]]

    return measure


def bound(*flags: str) -> Measure:
    """(d) Two independent one-core processes on a constant batch, in the environment that our workers have."""

    def measure(setting: Setting, folder: Path) -> list[float]:
        command = ["benchmarks.train.constant_batch", "--model", setting.model, "--batch-size", str(setting.batch_size)]
        command += ["--shape", *map(str, setting.shape), "--seconds", str(BOUND_SECONDS), *flags]
        outputs = pinned([command, command], [WORKER_ENVIRONMENT] * 2)
        return [sum(pair) for pair in zip(*(rates(output) for output in outputs), strict=False)]

    return measure


ORIGINAL = "(a) the original's way, 2 workers"
BOUND = "(d) bound: 2 processes, no input, no messages"
WAYS: dict[str, Measure] = {
    ORIGINAL: original,
    "(b) ours, 2 workers": ours(2),
    "(b) ours, 2 workers, bfloat16 gradients": ours(2, "bfloat16"),
    "(b) ours, 2 workers, bfloat16 gradients and layers": ours(2, "bfloat16", "bfloat16"),
    "(c) ours, 1 process with both cores": ours(1),
    BOUND: bound(),
    "(d) with our Adam": bound("--our-adam"),
    "(d) with our Adam and bfloat16 layers": bound("--our-adam", "--compute-dtype", "bfloat16"),
    "(e) PyTorch's DistributedDataParallel, gloo, 2 workers": pytorch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=2, help="interleaved repetitions of every measurement (default 2)"
    )
    parser.add_argument("--settings", type=int, nargs="+", default=[0, 1, 2], help="which settings (default all)")
    parser.add_argument(
        "--ways", nargs="+", choices="abcde", default="abcde", help="which ways, by letter (default all)"
    )
    arguments = parser.parse_args()
    settings = [SETTINGS[index] for index in arguments.settings]
    ways = {way: measure for way, measure in WAYS.items() if way[1] in arguments.ways}
    samples = measure_all(settings, ways, arguments.rounds)
    results = {
        "cores": len(CORES),
        "machine": platform.processor() or platform.machine(),
        "settings": [
            {"title": setting.title, "medians": medians(samples[setting]), "samples": samples[setting]}
            for setting in settings
        ],
    }
    RESULTS.write_text(json.dumps(results, indent=2), encoding="utf-8")
    console = Console(soft_wrap=True, markup=False, emoji=False)
    for setting in settings:
        console.print(table(setting, samples[setting]))
    console.print(f"wrote {RESULTS}")


def measure_all(settings: list[Setting], ways: dict[str, Measure], rounds: int) -> dict[Setting, Samples]:
    """Measures every way in every setting, once a round: what changes on the machine meanwhile, changes for all."""
    samples: dict[Setting, Samples] = {setting: {way: [] for way in ways} for setting in settings}
    with tempfile.TemporaryDirectory() as scratch, Progress() as progress:
        task = progress.add_task("measuring", total=rounds * len(settings) * len(ways))
        folders = {shape: Path(scratch, "x".join(map(str, shape))) for shape in {setting.shape for setting in settings}}
        for shape, folder in folders.items():
            folder.mkdir()
            prepare(shape, folder)
        for _, setting, (way, measure) in itertools.product(range(rounds), settings, ways.items()):
            samples[setting][way] += measure(setting, folders[setting.shape])
            progress.advance(task)
    return samples


def medians(samples: Samples) -> dict[str, float]:
    return {way: statistics.median(values) for way, values in samples.items()}


def table(setting: Setting, samples: Samples) -> Table:
    shown = Table(title=setting.title, title_justify="left")
    for heading in ("", "images/s", "/ (a)", "/ (d)", "samples"):
        shown.add_column(heading, justify="left" if not heading else "right")
    of = medians(samples)
    for way, median in of.items():
        ratios = [f"{median / of[other]:.2f}" if other in of else "" for other in (ORIGINAL, BOUND)]
        shown.add_row(way, f"{median:,.0f}", *ratios, str(len(samples[way])))
    return shown


if __name__ == "__main__":
    main()
