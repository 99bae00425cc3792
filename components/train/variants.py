"""What can be asked for by name: the model variants and the augmentations, which the worker's own modules build."""

from kfp_image_classification.components.step.errors import InvalidInput

ImageShape = tuple[int, int, int]

# Functions of `worker/backbones.py`: those for which there are weights of ImageNet.
BACKBONES = ("mobilenet_v3_small", "efficientnet_v2_b0", "resnet50_v2", "convnext_tiny")
# Each model variant, a function of `worker/models.py`, with the height and width in pixels that its images need.
SMALLEST_SIDE = {
    "cnn": 18,
    "cnn_small": 8,
    "resnet": 16,
    "cnn_dropout": 18,
    "cnn_batchnorm": 18,
    **dict.fromkeys(BACKBONES, 32),
}
AUGMENTATIONS = ("none", "shift", "shift_flip", "photo")


def check_model(name: str, image_shape: ImageShape) -> None:
    """Refuses images that are too small for a model; a user's own must tell by itself.

    Raises:
        InvalidInput: With the size that is needed.
    """
    if min(image_shape[:2]) < SMALLEST_SIDE.get(name, 1):
        raise InvalidInput(
            f"model_type = {name!r}: needs images of at least {SMALLEST_SIDE[name]} pixels, the data set's are "
            f"{image_shape[0]} x {image_shape[1]}; set image_size = {SMALLEST_SIDE[name]} or more"
        )
