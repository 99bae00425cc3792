"""Two of the components without the others: ingest a data set, train one model on it.

python examples/ingest_and_train.py                                               runs it on this machine
kfp dsl compile --py examples/ingest_and_train.py --output ingest_and_train.yaml  compiles it for a cluster
"""

from kfp import dsl, local

from kfp_image_classification.components.ingest import ingest
from kfp_image_classification.components.train import train


@dsl.pipeline(name="ingest-and-train")
def ingest_and_train(dataset: str = "mnist_5k", model_type: str = "cnn_small", epochs: int = 5) -> dsl.Model:
    """Trains one model with two workers in step.

    Args:
        dataset: As ingest takes it: `mnist_5k`, a TensorFlow Datasets name, `image_folder:PATH` or `image_list:PATH`.
        model_type: The model variant.
        epochs: Passes over the training images.
    """
    data = ingest(dataset=dataset, workers=2)
    trained = train(shards=data.outputs["shards"], model_type=model_type, workers=2, epochs=epochs)
    return trained.outputs["model"]


if __name__ == "__main__":
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root="runs/ingest-and-train")
    model = ingest_and_train().outputs["Output"]
    print(
        f"{model.metadata['model_type']}: {model.metadata['history'][-1]['val_accuracy']:.2%} of the validation images"
    )
    print(f"the model is in {model.path}")
