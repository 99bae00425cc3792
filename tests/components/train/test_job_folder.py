import shutil
import threading
from pathlib import Path

import pytest

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.job_folder import claim_directory, copy_whole, share_dataset
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions


def job_of(digits: Dataset, directory: Path, options: TrainOptions) -> TrainingJob:
    return TrainingJob(options=options, dataset=str(digits.directory), directory=str(directory))


def test_of_two_jobs_that_claim_a_folder_at_once_one_gets_it(
    digits: Dataset, train_options: TrainOptions, tmp_path: Path
) -> None:
    for attempt in range(20):
        refused: list[int] = []

        def claim(seed: int, folder: Path = tmp_path / str(attempt), refused: list[int] = refused) -> None:
            try:
                claim_directory(job_of(digits, folder, train_options.model_copy(update={"seed": seed})))
            except InvalidInput:
                refused.append(seed)

        threads = [threading.Thread(target=claim, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert {path.name for path in (tmp_path / str(attempt)).iterdir()} == {"exchange-token", "job.json"}


@pytest.mark.parametrize(("shared", "mode"), [(0o700, 0o600), (0o770, 0o640)])
def test_the_workers_secret_stays_the_same_and_is_theirs(
    shared: int, mode: int, digits: Dataset, train_options: TrainOptions, tmp_path: Path
) -> None:
    job = job_of(digits, tmp_path / "job", train_options)
    (tmp_path / "job").mkdir()
    (tmp_path / "job").chmod(shared)
    claim_directory(job)
    token = tmp_path / "job" / "exchange-token"
    first = token.read_text()
    claim_directory(job)
    assert (token.read_text(), len(bytes.fromhex(first)), token.stat().st_mode & 0o777) == (first, 32, mode)


def test_shared_data_set_is_not_copied_again_under_workers_that_read_it(
    digits: Dataset, train_options: TrainOptions, tmp_path: Path
) -> None:
    job = job_of(digits, tmp_path, train_options)
    shared = Path(share_dataset(job).dataset)
    before = {path.name: path.stat().st_ino for path in shared.iterdir()}
    share_dataset(job)
    assert {path.name: path.stat().st_ino for path in shared.iterdir()} == before
    damaged = shared / digits.manifest.splits["train"].shards[0].file
    damaged.write_bytes(damaged.read_bytes()[:50])
    share_dataset(job)
    assert Dataset(shared).is_whole()
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_failed_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_text("x")

    def fails(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copy2", fails)
    monkeypatch.setattr(shutil, "copytree", lambda source, target: (target.mkdir(), fails()))
    with pytest.raises(OSError, match="no space left"):
        copy_whole(tmp_path / "from", tmp_path / "to")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]
