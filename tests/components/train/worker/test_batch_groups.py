"""Batches that come together: which are taken together, and that the program of a group knows how many they are."""

import itertools
import re

import keras
import pytest
import tensorflow as tf

from kfp_image_classification.components.train.worker.batch_groups import BatchGroups, GroupSteps, batches_together
from kfp_image_classification.components.train.worker.steps import Pace


@pytest.mark.parametrize(
    ("batch_size", "image_shape", "epoch_steps", "together"),
    [
        (256, (32, 32, 3), 192, 16),
        (256, (32, 32, 3), 195, 15),
        (256, (32, 32, 3), 175, 7),
        (256, (32, 32, 3), 193, 16),  # a prime
        (256, (32, 32, 3), 3, 16),
        (1024, (32, 32, 3), 48, 4),
        (64, (28, 28, 1), 56, 14),
        (64, (224, 224, 3), 300, 1),
        (1024, (512, 512, 3), 7, 1),
    ],
)
def test_groups_are_small_and_fill_an_epoch_if_they_can(
    batch_size: int, image_shape: tuple[int, int, int], epoch_steps: int, together: int
) -> None:
    assert batches_together(batch_size, image_shape, epoch_steps) == together


@pytest.mark.parametrize(
    ("batches", "skipped", "calls", "taken"),
    [
        (4, 0, [8], [[(0, None), (1, None)]]),
        (4, 0, [3, 5, 4], [[(0, 0), (0, 1), (0, 2)], [(0, 3), (1, None)], [(2, None)]]),
        (4, 0, [6, 2], [[(0, None), (1, 0), (1, 1)], [(1, 2), (1, 3)]]),
        (4, 2, [6, 4], [[(0, 2), (0, 3), (1, None)], [(2, None)]]),
        (4, 3, [1], [[(0, 3)]]),
        (1, 0, [2, 1], [[(0, None), (1, None)], [(2, None)]]),
        (16, 0, [3], [[(0, 0), (0, 1), (0, 2)]]),
    ],
)
def test_every_batch_is_taken_once_and_in_order(
    batches: int, skipped: int, calls: list[int], taken: list[list[tuple[int, int | None]]]
) -> None:
    groups = BatchGroups(((number, number) for number in itertools.count()), batches, skipped)
    assert [[(group[0], index) for group, index in groups.take(count)] for count in calls] == taken


def test_a_call_takes_whole_groups_but_at_the_end_of_an_epoch() -> None:
    for seconds, count in ((0.35, 14), (0.1, 70), (70.0, 7)):  # of seven steps, so that a second has 20, 70 and none
        pace = Pace(workers=1, together=7)
        assert (pace.steps(left=100), pace.steps(left=3)) == (7, 3)
        for _ in range(3):
            pace.called(7, seconds, seconds)
        assert (pace.steps(left=100), pace.steps(left=3)) == (count, 3)


def test_two_programs_take_all_steps() -> None:
    """One knows how many batches a group has, the other is told which one it takes, and does not know before."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        weight = keras.Variable([1.0, 2.0])

    def step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        weight.assign_add(tf.reduce_mean(tf.cast(pixels, tf.float32)) * tf.ones(2))
        return weight.value

    steps = GroupSteps(strategy, step, batches=5, with_xla=True)
    group = tf.ones([5, 2, 4, 4, 1], tf.uint8), tf.zeros([5, 2], tf.int64)
    assert steps.with_all(group).numpy().tolist() == [2 + 3 + 4 + 5 + 6, 3 + 4 + 5 + 6 + 7]
    assert steps.with_one(group, 3).numpy().tolist() == [7, 8]
    one = steps._with_one.experimental_get_compiler_ir(*group, tf.constant(3))(stage="optimized_hlo")
    assert re.search(r"ENTRY .*: s32\[\]", one), "a program for each batch"
    program = steps._with_all.experimental_get_compiler_ir(*group)(stage="optimized_hlo")
    assert re.findall(r'known_trip_count":\{"n":"(\d+)"', program) == ["5"]
