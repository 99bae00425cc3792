"""Names in a job's folder on which the worker and the launcher agree."""

ATTEMPTS_DIRECTORY = "attempts"
DATASET_DIRECTORY = "dataset"
HISTORY_FILE = "history.jsonl"
JOB_FILE = "job.json"
MODEL_DIRECTORY = "model"
PROGRESS_FILE = "progress"
TENSORBOARD_DIRECTORY = "tensorboard"
