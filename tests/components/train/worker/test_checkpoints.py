import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from skips import Need, skip

from kfp_image_classification.components.train.attempts import OwnAttempt, Superseded
from kfp_image_classification.components.train.worker.checkpoints import (
    KEPT,
    Checkpoints,
    CheckpointUnreadable,
    Position,
)


def checkpoints(directory: Path, seed: int) -> tuple[Checkpoints, keras.Model]:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.layers.Input((256,)), keras.layers.Dense(256)])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    return Checkpoints(directory, model, [optimizer], tf.Module()), model


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_newest_is_restored_and_few_are_kept(tmp_path: Path) -> None:
    written, model = checkpoints(tmp_path, 0)
    assert written.restore() is None
    for step in range(1, 6):
        assert written.save(Position(step * 10, (1.5, step)))
    assert len([name for name in files(tmp_path) if name.endswith(".index")]) == KEPT
    read, other = checkpoints(tmp_path, 1)
    assert read.restore() == Position(50, (1.5, 5.0))
    assert np.array_equal(model.get_weights()[0], other.get_weights()[0])


@pytest.mark.parametrize("name", ["[a]", "[ ]", "a[1-", "a*", "a?b", "a\\b", "a]b"])
def test_folder_of_any_name(name: str, tmp_path: Path) -> None:
    """TensorFlow takes the path of a checkpoint for a pattern."""
    (tmp_path / "a1").mkdir()
    written, _ = checkpoints(tmp_path / name / "checkpoints", 0)
    assert written.save(Position(10, (0, 0)))
    read, _ = checkpoints(tmp_path / name / "checkpoints", 1)
    assert read.restore() == Position(10, (0.0, 0.0))


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing data", "index"])
def test_damaged_newest_falls_back_to_the_one_before(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, model = checkpoints(tmp_path, 0)
    written.save(Position(10, (0, 0)))
    good = model.get_weights()[0]
    model.set_weights([good + 1, model.get_weights()[1]])
    written.save(Position(20, (0, 0)))
    data = next(tmp_path.glob("step-0000000020.data*"))
    content = bytearray(data.read_bytes())
    if damage == "truncated":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        content[len(content) // 2] ^= 255
        data.write_bytes(content)
    elif damage == "missing data":
        data.unlink()
    else:
        (tmp_path / "step-0000000020.index").write_bytes(b"nonsense")
    read, other = checkpoints(tmp_path, 1)
    assert read.restore() == Position(10, (0.0, 0.0))
    assert np.array_equal(other.get_weights()[0], good)
    assert "checkpoint step-0000000020 is damaged" in capsys.readouterr().out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        skip(Need.SYSTEM, "cannot mount a small disk here (needs root)")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_full_disk_leaves_the_checkpoint_before(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, model = checkpoints(small_disk, 0)
    assert written.save(Position(10, (0, 0)))
    before = files(small_disk)
    (small_disk / "filler").write_bytes(bytes(1_800_000))
    assert not written.save(Position(20, (0, 0)))
    assert "checkpoint after step 20 was not written" in capsys.readouterr().out
    assert files(small_disk) == sorted([*before, "filler"])
    (small_disk / "filler").unlink()
    read, other = checkpoints(small_disk, 1)
    assert read.restore() == Position(10, (0.0, 0.0))
    assert np.array_equal(model.get_weights()[0], other.get_weights()[0])
    assert written.save(Position(30, (0, 0)))


def test_chief_that_was_taken_for_lost_publishes_nothing(tmp_path: Path) -> None:
    old, new = OwnAttempt(tmp_path, 1.0), OwnAttempt(tmp_path, 2.0)
    _, model = checkpoints(tmp_path / "checkpoints", 0)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    assert Checkpoints(tmp_path / "checkpoints", model, [optimizer], tf.Module(), new.check).save(Position(10, (0, 0)))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    with pytest.raises(Superseded, match="attempt 2 trains in"):
        Checkpoints(tmp_path / "checkpoints", model, [optimizer], tf.Module(), old.check).save(Position(10, (0, 0)))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == before


def test_two_chiefs_that_write_one_step_at_once_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    written = [checkpoints(tmp_path, seed) for seed in (0, 1)]
    threads = [threading.Thread(target=one.save, args=(Position(10, (0, 0)),)) for one, _ in written]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(tmp_path)) == 2


def test_what_a_killed_chief_began_is_removed(tmp_path: Path) -> None:
    written, _ = checkpoints(tmp_path, 0)
    written.save(Position(10, (0, 0)))
    before = files(tmp_path)
    (tmp_path / "step-0000000020.0a1b2c3d.partial").mkdir()
    (tmp_path / "step-0000000020.0a1b2c3d.partial" / "part").write_bytes(b"x")
    assert written.restore() == Position(10, (0.0, 0.0))
    written.remove_partial()
    assert files(tmp_path) == before


def test_others_restore_what_the_chief_restores(tmp_path: Path) -> None:
    written, _ = checkpoints(tmp_path, 0)
    for step in (10, 20):
        written.save(Position(step, (0, 0)))
    other, _ = checkpoints(tmp_path, 1)
    assert other.restore_step(10, patience=0) == Position(10, (0.0, 0.0))
    late = threading.Timer(0.3, written.save, args=(Position(30, (0, 0)),))
    late.start()
    assert other.restore_step(30, patience=20) == Position(30, (0.0, 0.0))
    late.join()
    with pytest.raises(CheckpointUnreadable, match="the chief continues from .*step-0000000040"):
        other.restore_step(40, patience=0)
