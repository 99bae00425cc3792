from kfp_image_classification.components.contracts import records


def test_a_record_is_the_same_in_every_process() -> None:
    """The features of an example are a map, whose order protobuf leaves to chance unless it is told otherwise."""
    image = b"\x0a\x0e" + b"\x0a\x05image" + b"\x12\x05\x0a\x03\x0a\x01\x07"
    label = b"\x0a\x0e" + b"\x0a\x05label" + b"\x12\x05\x1a\x03\x0a\x01\x03"
    assert records.serialize(b"\x07", 3) == b"\x0a\x20" + image + label
