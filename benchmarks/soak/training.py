"""A long training with two workers: threads, open files, memory maps, memory and speed at its start, middle and end.

`make bench-soak` runs it. It ends with 1 when a figure grows that must not.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.source import Content, PixelExamples, Source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.job_files import PROGRESS_FILE
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job

SHAPE = (32, 32, 3)
# By each worker's share: up to 64 MiB it is kept in memory, more is streamed. The second is CIFAR-10's training split.
IMAGES = {"in memory": 20_000, "streamed": 45_000}
BATCH = 64
WORKERS = 2
WINDOW_STEPS = 1000
SAMPLE_SECONDS = 0.5
MOST_RSS = 1.0e9
LEAST_SPEED = 0.97
# What may come and go: TensorFlow starts a thread more now and then, and a checkpoint has files open.
GROWTH = {"threads": 10, "files": 4, "maps": 200}
# TensorFlow starts threads and opens files as it first needs them; the first epoch has had all of that.
WARM_UP_EPOCHS = 1


@dataclass(frozen=True)
class Sample:
    """What one worker holds at some moment.

    Attributes:
        step: Steps that the job had taken.
        rss: Resident bytes.
    """

    step: int
    threads: int
    files: int
    maps: int
    rss: int

    @classmethod
    def of(cls, process: psutil.Process, step: int) -> "Sample":
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8").count("\n")
        return cls(step, process.num_threads(), process.num_fds(), maps, process.memory_info().rss)


class Watch(threading.Thread):
    """Samples a job's workers, which this process or one of its threads has started, until it is told to stop."""

    def __init__(self, job: Path, seconds: float = SAMPLE_SECONDS) -> None:
        super().__init__(daemon=True)
        self._job, self._seconds = job, seconds
        self._ends = threading.Event()
        self.samples: dict[int, list[Sample]] = {}

    def run(self) -> None:
        while not self._ends.wait(self._seconds):
            step = self._step()
            if not step:
                continue
            for process in psutil.Process().children():
                try:
                    if "kfp_image_classification.components.train.worker" not in process.cmdline():
                        continue
                    index = json.loads(process.environ()["TF_CONFIG"])["task"]["index"]
                    self.samples.setdefault(index, []).append(Sample.of(process, step))
                except (psutil.Error, OSError, KeyError):  # it ends just now
                    continue

    def stop(self) -> None:
        self._ends.set()
        self.join()

    def _step(self) -> int:
        try:
            return int((self._job / PROGRESS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0


@dataclass(frozen=True)
class Soak:
    """One finished training, as it was watched.

    Attributes:
        title: Which.
        steps: That it took.
        warm_up: Step after which nothing may grow.
        samples: Of each worker.
        first: Images a second in the first thousand steps after the warm-up.
        last: The same in the last thousand.
    """

    title: str
    steps: int
    warm_up: int
    samples: dict[int, list[Sample]]
    first: float
    last: float

    def at(self, worker: int, share: float) -> Sample:
        step = self.warm_up + share * (self.steps - self.warm_up)
        return min(self.samples[worker], key=lambda sample: abs(sample.step - step))

    def peak(self, worker: int) -> int:
        return max(sample.rss for sample in self.samples[worker])

    @property
    def faults(self) -> list[str]:
        """What grew that must not, in words."""
        found = []
        for worker in self.samples:
            start, end = self.at(worker, 0), self.at(worker, 1)
            for what, few in GROWTH.items():
                before, after = getattr(start, what), getattr(end, what)
                if after > before + few:
                    found.append(f"{self.title}, worker-{worker}: {what} went from {before} to {after}")
            if self.peak(worker) > MOST_RSS:
                found.append(f"{self.title}, worker-{worker}: memory reached {self.peak(worker) / 1e9:.2f} GB")
        if self.last < LEAST_SPEED * self.first:
            found.append(f"{self.title}: {self.first:,.0f} images/s at first, {self.last:,.0f} at last")
        return found


class Repeated(PixelExamples):
    """A few images as if they were many."""

    def pick(self, indices: np.ndarray) -> Iterator[Content]:
        return (self.pixels[index % len(self.pixels)] for index in indices)


def write_images(count: int, directory: Path) -> None:
    """Writes noise in ten classes, each with a tint of its own, so that there is something to learn."""
    noise = np.random.default_rng(0).integers(0, 200, (640, *SHAPE), np.uint8)
    for index in range(len(noise)):
        noise[index, ..., index % 3] += np.uint8(5 * (index % 10))

    def pictures(split: int) -> Repeated:
        return Repeated(noise, np.arange(split, dtype=np.int32) % 10)

    splits = {"train": pictures(round(count / 0.9)), "test": pictures(100)}
    source = Source("noise", "1", [str(index) for index in range(10)], SHAPE, splits)
    options = IngestOptions(dataset="noise", validation_share=0.1, workers=WORKERS, seed=0)
    write_dataset(source, options, directory, stage_log("bench"))


def soak(title: str, shards: Path, images: int, steps: int, seed: int) -> Soak:
    """Trains for at least a number of steps, and watches."""
    log = stage_log("bench")
    log.setLevel("WARNING")
    epoch_steps = images // (BATCH * WORKERS)
    epochs = WARM_UP_EPOCHS + -(-steps // epoch_steps)
    options = TrainOptions(
        model_type="cnn_small",
        backend="local",
        workers=WORKERS,
        epochs=epochs,
        batch_size=BATCH,
        learning_rates="0:1e-4",
        seed=seed,
        checkpoint_seconds=10,
    )
    with tempfile.TemporaryDirectory() as scratch:
        job = TrainingJob(options=options, dataset=str(shards), directory=str(Path(scratch, "job")))
        watch = Watch(Path(job.directory))
        watch.start()
        try:
            history = run_job(job, Path(scratch, "model"), log).history
        finally:
            watch.stop()
    rates = [row["images_per_second"] for row in history[WARM_UP_EPOCHS:]]
    few = max(1, min(len(rates) // 2, -(-WINDOW_STEPS // epoch_steps)))
    return Soak(
        title,
        epochs * epoch_steps,
        WARM_UP_EPOCHS * epoch_steps,
        watch.samples,
        statistics.harmonic_mean(rates[:few]),
        statistics.harmonic_mean(rates[-few:]),
    )


def table(soaks: Sequence[Soak]) -> Table:
    shown = Table(title="A long training, two workers: start / middle / end", title_justify="left")
    for heading in ("", "steps", "worker", "threads", "files", "maps", "RSS MB", "peak MB", "images/s first", "last"):
        shown.add_column(heading, justify="right" if heading else "left")
    for one in soaks:
        for worker in sorted(one.samples):
            moments = [one.at(worker, share) for share in (0, 0.5, 1)]
            shown.add_row(
                one.title,
                f"{one.steps:,}",
                str(worker),
                *(
                    " / ".join(str(getattr(moment, name)) for moment in moments)
                    for name in ("threads", "files", "maps")
                ),
                " / ".join(f"{moment.rss / 1e6:.0f}" for moment in moments),
                f"{one.peak(worker) / 1e6:.0f}",
                f"{one.first:,.0f}",
                f"{one.last:,.0f} ({one.last / one.first:.2f})",
            )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="of each training, at least (default 20,000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a training each (default 0)")
    parser.add_argument("--data", nargs="+", choices=[*IMAGES], default=[*IMAGES], help="default both")
    arguments = parser.parse_args()
    soaks = []
    for title in arguments.data:
        with tempfile.TemporaryDirectory() as scratch:
            shards = Path(scratch, "shards")
            write_images(IMAGES[title], shards)
            for seed in arguments.seeds:
                started = time.monotonic()
                soaks.append(soak(title, shards, IMAGES[title], arguments.steps, seed))
                print(f"{title}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    Console(soft_wrap=True, markup=False, emoji=False).print(table(soaks))
    faults = [fault for one in soaks for fault in one.faults]
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
