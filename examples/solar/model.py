"""Two versions of a defect classifier: features of a pretrained backbone, and a head fitted on solar cells.

What is exported is one OpenVINO IR model, so that an agent needs nothing but OpenVINO:

    image [1, 300, 300, 1] u8 -> normalise -> PP-LCNet -> mean and max of four stages -> linear head -> sigmoid
    -> defect_probability [1, 1] f32

The backbone runs at the cells' own 300 x 300 pixels; shrinking them to its native 224 costs 0.004 AUC.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from examples.solar.data import CELL_SIDE_PIXELS, Cells, Images

STAGES = ("HardSwish.10", "HardSwish.22", "HardSwish.26", "HardSwish.27")
"""Last outputs with 128, 256, 512 and 1,280 channels; pooled twice they are 4,352 features."""
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION = (58.395, 57.12, 57.375)
REGULARISATION = 0.01
"""Best of 1, 0.01, 0.001 and 0.0001 in five folds: 4,352 features against some hundred cells."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """defect_probability = sigmoid(features @ weights + bias)."""

    weights: Floats
    bias: float


def feature_model(backbone: Path) -> ov.Model:
    """Image [1, 300, 300, 1] u8 to features [1, 4352]."""
    model = ov.Core().read_model(backbone)
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    model.reshape([1, 3, CELL_SIDE_PIXELS, CELL_SIDE_PIXELS])
    _feed_grey(model)
    axes = np.array([2, 3])
    pooled = [
        pool(nodes[stage], axes, False).output(0) for stage in STAGES for pool in (ops.reduce_mean, ops.reduce_max)
    ]
    features = ops.concat(pooled, 1)
    features.output(0).get_tensor().set_names({"features"})
    return _take_images(ov.Model([ops.result(features)], model.get_parameters(), "solar-features"))


def extract_features(model: ov.Model, images: Images) -> Floats:
    """Features of each image, in f32 so that the head does not depend on the training machine's precision."""
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return np.concatenate([request.infer([image[None]])[0].copy() for image in images])


def fit_head(features: Floats, defective: npt.NDArray[np.bool_]) -> Head:
    """Logistic regression on standardised features, folded into one linear map on the raw features."""
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=REGULARISATION, max_iter=2000).fit(scaler.transform(features), defective)
    weights = fitted.coef_[0] / scaler.scale_
    bias = float(fitted.intercept_[0] - weights @ scaler.mean_)
    return Head(weights=weights.astype(np.float32), bias=bias)


def export_classifier(backbone: Path, head: Head, target: Path) -> Path:
    """Write `target`/model.xml and model.bin; the same head gives the same bytes. Returns the .xml."""
    model = feature_model(backbone)
    features = model.output("features").get_node().input_value(0)
    logit = ops.add(
        ops.matmul(features, ops.constant(head.weights[:, None]), False, False),
        ops.constant(np.array([[head.bias]], dtype=np.float32)),
    )
    probability = ops.sigmoid(logit)
    probability.output(0).get_tensor().set_names({"defect_probability"})
    classifier = ov.Model([ops.result(probability)], model.get_parameters(), "solar-defect")
    classifier.set_rt_info("Classification", ["model_info", "model_type"])
    classifier.set_rt_info("ok defect", ["model_info", "labels"])
    for index, node in enumerate(classifier.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{index}")  # OpenVINO's own names count on within a process
    target.mkdir(parents=True, exist_ok=True)
    path = target / "model.xml"
    ov.save_model(classifier, path, compress_to_fp16=False)
    return path


def build_version(backbone: Path, training: Cells, target: Path) -> Path:
    """Fit a head on `training` and export the classifier into `target`."""
    return export_classifier(
        backbone, fit_head(extract_features(feature_model(backbone), training.images), training.defective), target
    )


def _feed_grey(model: ov.Model) -> None:
    """Replace the backbone's input [1, 3, H, W] by one grey channel, normalised as the backbone was trained."""
    (old,) = model.get_parameters()
    grey = ops.parameter([1, 1, CELL_SIDE_PIXELS, CELL_SIDE_PIXELS], np.float32, name="image")
    grey.output(0).get_tensor().set_names({"image"})
    colours = ops.concat([grey] * 3, 1)
    centred = ops.subtract(colours, _per_channel(IMAGENET_MEAN))
    scaled = ops.divide(centred, _per_channel(IMAGENET_DEVIATION))
    for reader in old.output(0).get_target_inputs():
        reader.replace_source_output(scaled.output(0))
    model.add_parameters([grey])
    model.remove_parameter(old)


def _per_channel(values: tuple[float, ...]) -> Any:
    return ops.constant(np.array(values, dtype=np.float32).reshape(1, 3, 1, 1))


def _take_images(model: ov.Model) -> ov.Model:
    """Embed the conversion from camera images: u8, NHWC."""
    processor = PrePostProcessor(model)
    image = processor.input("image")
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    image.model().set_layout(ov.Layout("NCHW"))
    return processor.build()
