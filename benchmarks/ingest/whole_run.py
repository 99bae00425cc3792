"""`make bench-photographs`: 20,000 photographs through the whole pipeline, at once and in parts: the same data set.

Their classes differ in colour, so that there is something to learn. Each photograph is one of its own.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.photographs import CLASSES, SIZE

REPOSITORY = Path(__file__).parents[2]
OPTIONS = "--models cnn --epochs 2 --image-size 64"
SAMPLE_SECONDS = 0.2


def write_photographs(root: Path, count: int) -> int:
    """Writes a folder of classes; returns how many bytes the files have."""
    colours = np.random.default_rng(0).integers(40, 216, (CLASSES, 3))
    noise = np.random.default_rng(1).integers(-12, 13, (16, SIZE[1], SIZE[0], 3), np.int16)
    written = 0
    for number in range(count):
        random, label = np.random.default_rng(number), number % CLASSES
        shapes = (colours[label] + random.integers(-40, 41, (12, 16, 3))).clip(0, 255).astype(np.uint8)
        soft = np.asarray(Image.fromarray(shapes).resize(SIZE, Image.Resampling.BILINEAR)).astype(np.int16)
        file = io.BytesIO()
        Image.fromarray((soft + noise[number % 16]).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        path = root / f"class-{label}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        written += path.write_bytes(file.getvalue())
    return written


def run(folder: Path, source: Path, parts: int, options: list[str]) -> dict[str, Any]:
    """A whole run in a folder of its own: how long each step took and how large it grew, and the data set."""
    folder.mkdir()
    given = ["--dataset", f"image_folder:{source}", "--ingest-parts", str(parts), *options]
    command = [sys.executable, REPOSITORY / "pipelines" / "e2e.py", "--run", *given]
    started = time.monotonic()
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = psutil.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        peaks = peaks_of(process)
    if process.wait():
        sys.exit((folder / "log").read_text(encoding="utf-8"))
    seconds = time.monotonic() - started
    steps = json.loads((folder / "runs" / "latest" / "run.json").read_text(encoding="utf-8"))["steps"]
    (manifest,) = folder.glob("runs/latest/*/ingest/shards/manifest.json")
    shards = [path for path in manifest.parent.iterdir() if path != manifest]
    return {
        "seconds": seconds,
        "peaks": peaks,
        "steps": {f"{step['stage']} {step['model']}".strip(): step["seconds"] for step in steps},
        "shards": sum(path.stat().st_size for path in shards),
        "manifest": json.loads(manifest.read_text(encoding="utf-8")),
    }


def peaks_of(process: psutil.Process) -> dict[str, int]:
    """Follows a run to its end: for each step, and the workers, the largest memory that one process had, in MB."""
    peaks: dict[str, int] = {}
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                name, memory = _step_of(child.cmdline()), child.memory_info().rss // 10**6
                peaks[name] = max(peaks.get(name, 0), memory)
        time.sleep(SAMPLE_SECONDS)
    return {name: peak for name, peak in peaks.items() if name}


def _step_of(command: list[str]) -> str:
    if "--function_to_execute" in command:
        return command[command.index("--function_to_execute") + 1]
    modules = {"components.train.worker": "worker", "components.deploy.server": "server"}
    return next((name for module, name in modules.items() if any(part.endswith(module) for part in command)), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--options", default=OPTIONS, help=f"of the pipeline (default {OPTIONS})")
    arguments = parser.parse_args()
    table = Table("parts", "whole run, s", "shards, MB", "steps, s", "peak of a process, MB")
    manifests = []
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "photographs")
        size = write_photographs(source, arguments.count)
        print(f"{arguments.count:,} photographs, {size / 1e6:,.0f} MB, {os.cpu_count()} cores", flush=True)
        for parts in arguments.parts:
            found = run(Path(scratch, f"run-{parts}"), source, parts, arguments.options.split())
            steps = found["steps"]
            told = ", ".join(f"{name} {seconds:.0f}" for name, seconds in steps.items() if seconds)
            peaks = ", ".join(f"{name} {peak:,}" for name, peak in found["peaks"].items())
            table.add_row(str(parts), f"{found['seconds']:.0f}", f"{found['shards'] / 1e6:,.0f}", told, peaks)
            print(parts, found["seconds"], told, peaks, flush=True)
            manifests.append(found["manifest"])
            shutil.rmtree(Path(scratch, f"run-{parts}"))
    Console(soft_wrap=True, markup=False, emoji=False).print(table)
    if any(manifest != manifests[0] for manifest in manifests):
        sys.exit("the data sets differ")
    print("the data sets are the same, byte for byte")


if __name__ == "__main__":
    main()
