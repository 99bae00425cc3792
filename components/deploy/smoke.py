"""The smoke prediction: known images, whose answers the trained model gave, through the service's own URL."""

from typing import Any

import httpx
import numpy as np

from components.errors import StageFailed
from components.model_card import Example, ModelCard

TOLERANCE = 1e-4
TIMEOUT_SECONDS = 30.0


def request_body(examples: list[Example]) -> dict[str, Any]:
    """A request of KServe's V1 protocol."""
    return {"instances": [{"b64": example.png} for example in examples]}


def smoke_predict(predict_url: str, card: ModelCard) -> list[dict[str, Any]]:
    """Sends a model's examples to its service and compares the answers.

    Returns:
        The predictions.

    Raises:
        StageFailed: When the service does not answer, or answers otherwise than the trained model did.
    """
    try:
        response = httpx.post(predict_url, json=request_body(card.examples), timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        predictions: list[dict[str, Any]] = response.json()["predictions"]
        answered = np.array([prediction["probabilities"] for prediction in predictions])
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        raise StageFailed(f"smoke prediction: {predict_url} gave no usable answer: {error}") from None
    expected = np.array([example.probabilities for example in card.examples])
    if answered.shape != expected.shape or not np.abs(answered - expected).max() <= TOLERANCE:
        raise StageFailed(f"smoke prediction: {predict_url} answers otherwise than the trained model did")
    return predictions
