"""Run by any Python with TensorFlow 2.6 or later: loads a SavedModel in two ways, and asks it its own examples.

TensorFlow Serving loads a graph into a session, as the second way does; a model can load the first way and fail there.
Prints the largest difference from the recorded probabilities.
"""

import base64
import json
import sys

import numpy as np
import tensorflow as tf

version_folder, card_file = sys.argv[1:]
with open(card_file) as file:  # noqa: PTH123 - as little as possible beside what is tested
    examples = json.load(file)["examples"]
images = [base64.b64decode(example["png"]) for example in examples]
expected = np.array([example["probabilities"] for example in examples])

loaded = tf.saved_model.load(version_folder)
differences = [loaded.signatures["serving_default"](tf.constant(images))["probabilities"].numpy() - expected]

with tf.compat.v1.Session(graph=tf.Graph()) as session:
    signature = tf.compat.v1.saved_model.load(session, ["serve"], version_folder).signature_def["serving_default"]
    answer = session.run(
        signature.outputs["probabilities"].name, {signature.inputs["image_bytes"].name: np.array(images)}
    )
    differences.append(answer - expected)

print(json.dumps({"tensorflow": tf.__version__, "difference": float(np.abs(differences).max())}))
