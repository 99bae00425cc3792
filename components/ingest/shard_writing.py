"""Writes shards, on all cores that this step may use.

A thread writes a shard. What takes the time (decoding, compressing, reading files) is done by libraries that leave the
interpreter to others meanwhile, so threads keep all cores busy, and none of them has to load TensorFlow anew.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path

import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import RAW, RecordLayout, Shard, file_sha256
from kfp_image_classification.components.contracts.preprocessing import decode_image, fit_image
from kfp_image_classification.components.ingest.shard_plan import PlannedShard, ShardPlan
from kfp_image_classification.components.ingest.sources.source import Content, ImageShape
from kfp_image_classification.components.ingest.unusable_images import UnusableImages, unusable
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.errors import InvalidInput

PROGRESS_SECONDS = 5.0
