"""Tasks of KerasHub, randomly initialized: their `fit`, `evaluate` and `predict` prepare the data.

Skipped without KerasHub, which the extra `hub` installs.
"""

import numpy as np
import pytest
from parity import assert_parity, covers, use

random = np.random.default_rng(0)
IMAGES = random.uniform(0, 255, (6, 32, 32, 3)).astype("float32")
CLASSES = np.array([0, 1, 1, 0, 1, 0])
MASKS = np.eye(2, dtype="float32")[random.integers(0, 2, (6, 32, 32))]
TEXTS = np.array(["a b c", "b a", "c c c a", "a", "b b", "c a b a"])


def backbone(keras_hub):
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )


def classifier(keras_hub):
    hub = keras_hub.models
    preprocessor = hub.ImageClassifierPreprocessor(
        keras_hub.layers.ResNetImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    return hub.ResNetImageClassifier(backbone(keras_hub), num_classes=2, preprocessor=preprocessor)


def segmenter(keras_hub):
    hub = keras_hub.models
    backbone_of_segmenter = hub.DeepLabV3Backbone(
        image_encoder=backbone(keras_hub),
        spatial_pyramid_pooling_key="P3",
        dilation_rates=[2],
        upsampling_size=4,
        image_shape=(32, 32, 3),
    )
    preprocessor = hub.DeepLabV3ImageSegmenterPreprocessor(
        keras_hub.layers.DeepLabV3ImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    return hub.DeepLabV3ImageSegmenter(
        backbone_of_segmenter, num_classes=2, activation="softmax", preprocessor=preprocessor
    )


def text_classifier(keras_hub):
    hub = keras_hub.models
    tokenizer = hub.BertTokenizer(vocabulary=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc"])
    return hub.BertTextClassifier(
        hub.BertBackbone(
            vocabulary_size=8,
            num_layers=1,
            num_heads=1,
            hidden_dim=4,
            intermediate_dim=4,
            max_sequence_length=6,
        ),
        num_classes=2,
        preprocessor=hub.BertTextClassifierPreprocessor(tokenizer, sequence_length=6),
    )


def script(Trainer, keras_hub, build, data):
    trainer = Trainer(build(keras_hub))
    trainer.compile(optimizer="adam")  # the rest is the task's own choice
    test = {"x": data["x"], "y": data["y"], "batch_size": 4}
    return use(trainer, data, test, epochs=2, batch_size=4)


@pytest.fixture(scope="module")
def keras_hub():
    return pytest.importorskip("keras_hub", exc_type=ImportError)


@covers("overrides: tasks of KerasHub (image classification, segmentation, text)")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("build", "x", "y"),
    [(classifier, IMAGES, CLASSES), (segmenter, IMAGES, MASKS), (text_classifier, TEXTS, CLASSES)],
)
def test_tasks_of_keras_hub(keras_hub, build, x, y):
    assert_parity(
        keras_hub, build, {"x": x, "y": y, "validation_data": (x[:3], y[:3])}, script=script
    )
