"""The smoke prediction: known images, whose answers the trained model gave, through the service's own URL."""

import math
import time
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import tenacity

from kfp_image_classification.components.contracts.model_card import Example, ModelCard
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.step.errors import StageFailed

TOLERANCE = 1e-4
TIMEOUT_SECONDS = 30.0
# How sure it is that a canary which gets its share of the requests is met.
CANARY_MISSED = 1e-4
PAUSE_SECONDS = 0.1


class NoAnswer(StageFailed):
    """The service cannot be reached, or gives no predictions: it may still be on its way."""


class OtherAnswer(StageFailed):
    """The service's predictions are not the trained model's."""


def request_body(examples: list[Example]) -> dict[str, Any]:
    """A request of KServe's V1 protocol."""
    return {"instances": [{"b64": example.png} for example in examples]}


def smoke_predict(predict_url: str, card: ModelCard) -> list[dict[str, Any]]:
    """Sends a model's examples to its service and compares the answers.

    Returns:
        The predictions.

    Raises:
        NoAnswer: When the service does not answer.
        OtherAnswer: When it answers otherwise than the trained model did.
    """
    with _client(predict_url, {}) as client:
        return _predict(client, predict_url, card)


def smoke_predict_patiently(
    predict_url: str, card: ModelCard, headers: Mapping[str, str], seconds: float, settle_seconds: float
) -> list[dict[str, Any]]:
    """As `smoke_predict`, again while a service that is ready still finds its way to its clients.

    Args:
        predict_url: The service's URL.
        card: What it must answer.
        headers: Sent with each request.
        seconds: How long no answer is passed over: routes and names may still spread.
        settle_seconds: How long another answer is passed over: the last requests may still go to the version before.

    Raises:
        StageFailed: When no right answer came in time.
    """
    with _client(predict_url, headers) as client:
        return _patient(seconds, settle_seconds)(_predict, client, predict_url, card)


def meet_canary(
    predict_url: str, card: ModelCard, headers: Mapping[str, str], percent: int, seconds: float, route_seconds: float
) -> list[dict[str, Any]]:
    """Asks until the canary's answer comes, which is told from the stable version's by its numbers.

    Args:
        predict_url: The service's URL, behind which requests are split.
        card: The canary's.
        headers: Sent with each request.
        percent: The canary's share of the requests.
        seconds: How long no answer is passed over.
        route_seconds: How long the ingress may take to send the canary its share; answers count from then on.

    Returns:
        The canary's predictions.

    Raises:
        StageFailed: When no answer comes, or none of so many is the canary's that chance is no excuse.
    """
    attempts = math.ceil(math.log(CANARY_MISSED) / math.log(1 - percent / 100))
    follows_by, answers = time.monotonic() + route_seconds, 0
    with _client(predict_url, headers) as client:
        while answers < attempts:
            try:
                return _patient(seconds, 0)(_predict, client, predict_url, card)
            except OtherAnswer:
                if time.monotonic() < follows_by:
                    time.sleep(PAUSE_SECONDS)
                else:
                    answers += 1
    raise StageFailed(
        f"smoke prediction: none of {attempts} answers from {predict_url} was the canary's, which is to get {percent}% "
        "of the requests: it answers otherwise than the trained model did, or this ingress does not split requests"
    )


def wait_for_model(model_url: str, headers: Mapping[str, str], seconds: float) -> None:
    """Waits until a service says that its model is there, where no examples are at hand to ask it.

    Args:
        model_url: The model's URL in the V1 protocol, without a verb.
        headers: Sent with each request.
        seconds: How long to wait.

    Raises:
        NoAnswer: When it does not in time.
    """

    def ask(client: httpx.Client) -> None:
        try:
            client.get(model_url).raise_for_status()
        except httpx.HTTPError as error:
            raise NoAnswer(f"{model_url} does not answer: {error}") from None

    with _client(model_url, headers) as client:
        _patient(seconds, 0)(ask, client)


def _client(url: str, headers: Mapping[str, str]) -> httpx.Client:
    # A connection that is kept would go to the same replica each time.
    try:
        return http_client(
            url, headers=headers, timeout=TIMEOUT_SECONDS, limits=httpx.Limits(max_keepalive_connections=0)
        )
    except ValueError as error:
        raise StageFailed(f"{url} cannot be asked: {error}") from None


def _predict(client: httpx.Client, predict_url: str, card: ModelCard) -> list[dict[str, Any]]:
    try:
        response = client.post(predict_url, json=request_body(card.examples))
        response.raise_for_status()
        predictions: list[dict[str, Any]] = response.json()["predictions"]
        answered = np.array([prediction["probabilities"] for prediction in predictions])
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        raise NoAnswer(f"smoke prediction: {predict_url} gave no usable answer: {error}") from None
    expected = np.array([example.probabilities for example in card.examples])
    if answered.shape != expected.shape or not np.abs(answered - expected).max() <= TOLERANCE:
        raise OtherAnswer(f"smoke prediction: {predict_url} answers otherwise than the trained model did")
    return predictions


def _patient(no_answer_seconds: float, other_answer_seconds: float) -> tenacity.Retrying:
    def out_of_patience(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        patience = no_answer_seconds if isinstance(error, NoAnswer) else other_answer_seconds
        return (state.seconds_since_start or 0.0) >= patience

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((NoAnswer, OtherAnswer)),
        wait=tenacity.wait_exponential(multiplier=0.25, max=5),
        stop=out_of_patience,
        reraise=True,
    )


def shown_example(card: ModelCard, answers: list[str]) -> int:
    """The image to show people: preferably one that the model recognises, and not the first class."""

    def preference(index: int) -> tuple[bool, int]:
        example: Example = card.examples[index]
        return answers[index] == example.label, index

    return max(range(len(card.examples)), key=preference)
