"""Micro-batches without a wait: while one batch is computed, requests collect, and they are the next batch.

A lone client never waits for others; many clients share a batch. A few threads decode and compute a batch each, the
event loop reads and writes. Requests that take less than handing them over does are computed by the event loop itself,
those together that were read in one turn of it.
"""

import asyncio
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np

from kfp_image_classification.components.deploy.server.image_files import UnusableImage, decode, pixels_of_png
from kfp_image_classification.components.deploy.server.loaded_model import Answer, LoadedModel
from kfp_image_classification.components.deploy.server.server_metrics import BATCH_IMAGES, QUEUE_IMAGES
from kfp_image_classification.components.deploy.server.statistics import Statistics

Images = list[bytes] | np.ndarray

# What a request may take, at most, that the event loop computes itself: no other is read or written meanwhile.
BRIEF_SECONDS = 0.001
BRIEF_PIXELS = 10_000  # of PNG files, which take half of that


class Overloaded(Exception):
    """The queue is full; the same request may well succeed a second later."""


@dataclass(frozen=True, eq=False)
class _Job:
    model: LoadedModel
    images: Images
    answer: asyncio.Future[Answer]
    arrived: float


class Batcher:
    """Answers requests in batches.

    Args:
        loop: Where the requests wait.
        max_batch: Images computed at once; a larger request is computed in parts.
        max_queue: Images waiting or being computed; beyond it, requests are refused.
        max_pixels: Of the encoded images of one request together.
        parallel: Batches computed at the same time. One a core, each on one core, served half as many requests again
            as one batch on all cores: decoding, too, is then done on all of them.

    Attributes:
        statistics: What was answered.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, max_batch: int, max_queue: int, max_pixels: int, parallel: int
    ) -> None:
        self._loop = loop
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_pixels = max_pixels
        self._queued = 0
        QUEUE_IMAGES.set_function(lambda: self._queued)
        self._brief: list[_Job] = []
        self.statistics = Statistics()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        for _ in range(parallel):
            threading.Thread(target=self._work, name="batches", daemon=True).start()

    async def answer(self, model: LoadedModel, images: Images) -> Answer:
        """Answers one request: files, or pixels as uint8 [n, *image_shape].

        Raises:
            Overloaded: At once, when too many images wait already. A request alone is never too large.
            UnusableImage: When an image cannot be decoded.
        """
        count = len(images)
        if self._queued and self._queued + count > self._max_queue:
            raise Overloaded
        self._queued += count
        job = _Job(model, images, self._loop.create_future(), time.perf_counter())
        if _is_brief(model, images):
            if not self._brief:
                self._loop.call_soon(self._answer_brief)
            self._brief.append(job)
        else:
            self._jobs.put(job)
        succeeded = False
        try:
            answer = await job.answer
            succeeded = True
            return answer
        finally:
            self.statistics.add_request(model.version, count, time.perf_counter() - job.arrived, succeeded)
            self._queued -= count
            # The traceback of an error leads to this frame. A way from here to the error would keep both, and the
            # request's images, until a collection of garbage, which are rare.
            del job

    def _answer_brief(self) -> None:
        model, images, taken = self._brief[0].model, 0, 0
        for job in self._brief:
            images += len(job.images)
            if job.model is not model or (taken and images > self._max_batch):
                break
            taken += 1
        batch, self._brief = self._brief[:taken], self._brief[taken:]
        if self._brief:
            self._loop.call_soon(self._answer_brief)
        _deliver(batch, self._results(batch))

    def _work(self) -> None:
        waiting: _Job | None = None
        while True:
            batch = [waiting or self._jobs.get()]
            waiting = None
            images = len(batch[0].images)
            while images < self._max_batch and waiting is None:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job.model is batch[0].model and images + len(job.images) <= self._max_batch:
                    batch.append(job)
                    images += len(job.images)
                else:
                    waiting = job
            results = self._results(batch)
            self._loop.call_soon_threadsafe(_deliver, batch, results)
            del batch, results  # they would live as long as this thread waits for the next request

    def _results(self, batch: list[_Job]) -> list[Answer | Exception]:
        started = time.perf_counter()
        pixels = [self._pixels(job) for job in batch]
        good = [one for one in pixels if isinstance(one, np.ndarray)]
        decoded = time.perf_counter()
        try:
            answer = self._computed(batch[0].model, np.concatenate(good) if len(good) != 1 else good[0]) if good else {}
        except Exception as error:  # the thread must live on, and each request has to hear of it
            return [one if isinstance(one, Exception) else error for one in pixels]
        computed = time.perf_counter()
        results: list[Answer | Exception] = []
        start = 0
        for one in pixels:
            if isinstance(one, Exception):
                results.append(one)
            else:
                results.append({name: rows[start : start + len(one)] for name, rows in answer.items()})
                start += len(one)
        if good:
            self.statistics.add_batch(
                batch[0].model.version,
                start,
                -(-start // self._max_batch),
                len(batch),
                sum(started - job.arrived for job in batch),
                (decoded - started, computed - decoded, time.perf_counter() - computed),
            )
        return results

    def _pixels(self, job: _Job) -> np.ndarray | Exception:
        if isinstance(job.images, np.ndarray):
            return job.images
        try:
            return decode(job.images, job.model.card.image_shape, self._max_pixels)
        except UnusableImage as error:
            # Without the traceback, which leads to the job, as the job will to the error.
            return UnusableImage(str(error))
        except Exception as error:  # lack of memory, say
            return error

    def _computed(self, model: LoadedModel, pixels: np.ndarray) -> Answer:
        parts = []
        for start in range(0, len(pixels), self._max_batch):
            part = pixels[start : start + self._max_batch]
            BATCH_IMAGES.observe(len(part))
            parts.append(model.answer(part))
        return (
            parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )


def _is_brief(model: LoadedModel, images: Images) -> bool:
    if len(images) * model.seconds > BRIEF_SECONDS:
        return False
    return isinstance(images, np.ndarray) or sum(map(pixels_of_png, images)) <= BRIEF_PIXELS


def _deliver(batch: list[_Job], results: list[Answer | Exception]) -> None:
    for job, result in zip(batch, results, strict=True):
        if job.answer.done():  # its client has gone
            continue
        if isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)
