import threading
from pathlib import Path

import pytest

from kfp_image_classification.components.train.attempts import (
    OwnAttempt,
    Restart,
    Superseded,
    job_times,
    note_end,
    read_attempts,
)

READY = {"start": 4.0, "connect": 1.0, "build": 1.0}


def attempt(folder: Path, started: float, told: float, steps: tuple[int, int], **seconds: float) -> None:
    OwnAttempt(folder, started).tell(told=told, first_step=steps[0], step=steps[1], seconds={**READY, **seconds})


def test_undisturbed_job_adds_up_without_a_restart(tmp_path: Path) -> None:
    attempt(tmp_path, 103.0, 120.0, (0, 100), train=9.0, export=2.0)
    times = job_times(tmp_path, submitted=100.0, ended=121.0)
    assert times.restarts == []
    assert times.seconds == pytest.approx(
        {"wait": 3.0, "start": 4.0, "connect": 1.0, "build": 1.0, "train": 9.0, "export": 2.0, "end": 1.0}
    )


def test_restart_is_told_with_its_reason_and_its_cost_and_all_adds_up(tmp_path: Path) -> None:
    attempt(tmp_path, 100.0, 116.0, (0, 100), train=10.0)
    note_end(tmp_path, "worker-0: another worker was lost", overrides=False)
    note_end(tmp_path, "worker-1 was ended by signal 9\nand more")
    note_end(tmp_path, "worker-0: another worker was lost", overrides=False)
    attempt(tmp_path, 120.0, 136.0, (80, 180), train=10.0)
    times = job_times(tmp_path, submitted=100.0, ended=137.0)
    # Four seconds until the next start, six until it trains, and a fifth of ten for the steps that are taken again.
    assert times.restarts == [Restart("worker-1 was ended by signal 9", pytest.approx(12.0), 20)]
    assert times.restarts[0].words == "worker-1 was ended by signal 9 (12.0 s, 20 steps taken again)"
    assert times.seconds == pytest.approx(
        {"start": 4.0, "connect": 1.0, "build": 1.0, "train": 18.0, "restarts": 12.0, "end": 1.0}
    )
    assert sum(times.seconds.values()) == pytest.approx(37.0)


def test_attempt_that_never_trained(tmp_path: Path) -> None:
    OwnAttempt(tmp_path, 100.0)
    attempt(tmp_path, 110.0, 126.0, (0, 100), train=10.0)
    times = job_times(tmp_path, submitted=100.0, ended=126.0)
    assert times.restarts == [Restart("", pytest.approx(16.0), 0)]
    assert times.restarts[0].words == "nobody told why (16.0 s, 0 steps taken again)"
    assert sum(times.seconds.values()) == pytest.approx(26.0)


def test_time_between_a_killed_launcher_and_the_next_is_nobodys(tmp_path: Path) -> None:
    attempt(tmp_path, 100.0, 116.0, (0, 100), train=10.0)
    attempt(tmp_path, 5002.0, 5018.0, (100, 200), train=10.0)
    times = job_times(tmp_path, submitted=5000.0, ended=5018.0)
    assert [restart.seconds for restart in times.restarts] == [pytest.approx(8.0)]
    assert times.seconds == pytest.approx({"train": 10.0, "restarts": 8.0})


def test_job_whose_submission_nobody_knows(tmp_path: Path) -> None:
    attempt(tmp_path, 100.0, 116.0, (0, 100), train=10.0)
    assert sum(job_times(tmp_path).seconds.values()) == pytest.approx(16.0)
    assert job_times(tmp_path / "empty").seconds == {}


def test_attempt_that_was_taken_for_lost_writes_no_more(tmp_path: Path) -> None:
    old, new = OwnAttempt(tmp_path, 1.0), OwnAttempt(tmp_path, 2.0)
    new.tell(step=7)
    with pytest.raises(Superseded, match="attempt 2 trains in"):
        old.tell(step=9)
    assert [known.step for known in read_attempts(tmp_path)] == [0, 7]


def test_no_two_attempts_have_one_number(tmp_path: Path) -> None:
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(OwnAttempt(tmp_path, 1.0).number)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 21))
