"""Names in a job's folder on which the worker and the launcher agree."""

HISTORY_FILE = "history.jsonl"
MODEL_DIRECTORY = "model"
