"""One worker trained as PyTorch does it: DistributedDataParallel over gloo, everything in memory.

Runs in an environment of its own, which has nothing of this package. Prints the rate of each epoch.
"""

import argparse
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def layers_of(model: str, shape: tuple[int, ...]) -> nn.Sequential:
    channels = shape[2]
    if model == "cnn_small":
        layers = [nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    else:
        layers = [nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU()]
    features = nn.Sequential(*layers, nn.Flatten())
    size = features(torch.zeros(1, channels, *shape[:2])).shape[1]
    return nn.Sequential(features, nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 10))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, required=True, help="of each worker")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps an epoch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.distributed.init_process_group("gloo")  # RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say who and where
    workers, index = torch.distributed.get_world_size(), torch.distributed.get_rank()
    data = np.load(arguments.data)
    pixels = torch.from_numpy(data["pixels"][index::workers].transpose(0, 3, 1, 2).copy()).float() / 255
    labels = torch.from_numpy(data["labels"][index::workers].astype(np.int64))
    model = DistributedDataParallel(layers_of(arguments.model, data["pixels"].shape[1:]))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss_of = nn.CrossEntropyLoss()
    chosen = torch.Generator().manual_seed(index)
    for _ in range(arguments.epochs):
        started = time.monotonic()
        for _ in range(arguments.steps):
            batch = torch.randint(len(labels), (arguments.batch_size,), generator=chosen)
            optimizer.zero_grad()
            loss_of(model(pixels[batch]), labels[batch]).backward()
            optimizer.step()
        images = arguments.steps * arguments.batch_size * workers
        print(f"rate {images / (time.monotonic() - started)}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
