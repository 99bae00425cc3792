"""What the worker and the launcher agree on: names in a job's folder, and a port."""

ATTEMPTS_DIRECTORY = "attempts"
DATASET_DIRECTORY = "dataset"
EXCHANGE_TOKEN_FILE = "exchange-token"
HISTORY_FILE = "history.jsonl"
JOB_FILE = "job.json"
MODEL_DIRECTORY = "model"
PROGRESS_FILE = "progress"
# Holds the one file of weights that the training begins with.
START_DIRECTORY = "start"
TENSORBOARD_DIRECTORY = "tensorboard"
# As the Training Operator's; nothing else listens in a worker's pod. At the one above it the workers' exchange does.
WORKER_PORT = 2222
