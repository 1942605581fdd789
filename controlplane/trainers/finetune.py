"""`python -m controlplane.trainers.finetune`: trains every layer of the base version. Needs torch.

The head is refitted first, as `head` does, and from there all layers are trained with a small step. The candidate is
the moving average of what the weights became, unless it is clearly worse than the head alone on the validation items:
to pick by what a hundred items say beyond that would be to pick by luck. Parameters: `epochs`, `step` (the share of its
size by which a weight moves at once), `batch`, `seed`, `average` (the share of the average that a step keeps at most),
`flips` and `contrast` (how pictures are varied: `augmentation`), `mixup` (how evenly two pictures are mixed into one:
the alpha of Zhang et al. 2018, arXiv:1710.09412; 0 mixes none), and those of `weighting`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from controlplane.trainers import weighting
from controlplane.trainers.augmentation import Variation, mixed, varied
from controlplane.trainers.contract import TRAIN, VALIDATION, Item, Task, TrainerError, run
from controlplane.trainers.head import Examples, class_labels, examples_of, fit, split_of
from controlplane.trainers.inputs import Array, read_input
from controlplane.trainers.metrics import Truth, is_clearly_worse, mean_auc, measure
from controlplane.trainers.network import Activation, Network, read_network, replace_head
from controlplane.trainers.torch_graph import TorchGraph

_PARAMETERS = weighting.PARAMETERS | {"epochs", "step", "batch", "seed", "average", "flips", "contrast", "mixup"}
_HEAD_REGULARISATION = 0.01
_SIZE_MIN = 1e-3
_GRADIENT_NORM_MAX = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    epochs: int
    step: float
    batch: int
    seed: int
    average: float
    variation: Variation
    mixup: float


def train(task: Task) -> None:
    """Write the candidate and its metrics. Raises TrainerError."""
    torch = _torch()
    task.check_parameters(_PARAMETERS)
    plan = _plan(task)
    torch.manual_seed(plan.seed)
    network = read_network(task.base)
    labels = class_labels(network)
    examples = examples_of(task, network, labels, share=0.1)
    training, validation = split_of(examples, TRAIN), split_of(examples, VALIDATION)
    head = fit(network, training, _HEAD_REGULARISATION)
    replace_head(network, head.weights, head.bias)
    tuning = _Tuning(
        torch=torch,
        graph=TorchGraph(network, torch),
        network=network,
        plan=plan,
        training=training,
        validation=validation,
        inputs=_contents(network, training.items),
        held=_contents(network, validation.items),
    )
    tuning.run(lambda fraction, message: task.tell(0.1 + 0.85 * fraction, message))
    metrics = {"training_items": float(len(training.items)), "validation_items": float(len(validation.items))}
    if validation.items:
        metrics |= measure("validation", network, tuning.numbers(), _truth(validation), labels)
    tuning.graph.write_back()
    (task.output / "model").mkdir(exist_ok=True)
    task.copy_companions(network.path)
    ov.save_model(network.model, task.output / "model" / "model.xml", compress_to_fp16=False)
    task.deliver(metrics)
    task.tell(1.0, ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())))


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise TrainerError("torch is not installed; pip install 'lineside[torch]', or use the trainer head") from error
    return torch


def _plan(task: Task) -> _Plan:
    flips = task.parameters.get("flips", True)
    if not isinstance(flips, bool):
        raise TrainerError(f"parameter flips is {flips!r}; give true or false")
    return _Plan(
        epochs=int(task.number("epochs", 32, least=1, most=1000)),
        step=task.number("step", 1e-3, least=1e-7, most=1.0),
        batch=int(task.number("batch", 16, least=1, most=1024)),
        seed=int(task.number("seed", 0, least=0, most=1 << 31)),
        average=task.number("average", 0.99, least=0.0, most=0.99999),
        variation=Variation(
            flips=flips,
            contrast=task.number("contrast", 0.15, least=0.0, most=0.9),
        ),
        mixup=task.number("mixup", 0.3, least=0.0, most=100.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tuning:
    """What a fine-tune works with."""

    torch: Any
    graph: TorchGraph
    network: Network
    plan: _Plan
    training: Examples
    validation: Examples
    inputs: Array
    """Of the training items."""
    held: Array
    """Of the validation items."""

    def run(self, tell: Callable[[float, str], None]) -> None:
        """Leave the graph with the averaged weights, or with those before where these are clearly worse."""
        torch, plan, draw = self.torch, self.plan, np.random.default_rng(self.plan.seed)
        optimiser = torch.optim.AdamW(self._groups(), weight_decay=1e-4)
        steps = plan.epochs * -(-len(self.training.items) // plan.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        weights = list(self.graph.weights.values())
        before, averaged = _copies(weights), _copies(weights)
        taken = 0
        numbers_before = self.numbers()
        for epoch in range(plan.epochs):
            order = draw.permutation(len(self.training.items))
            for start in range(0, len(order), plan.batch):
                loss = self._mixed_loss(order[start : start + plan.batch], draw)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, _GRADIENT_NORM_MAX)
                optimiser.step()
                schedule.step()
                taken += 1
                _average(averaged, weights, min(plan.average, taken / (10 + taken)))
            latest = _copies(weights)
            _put(weights, averaged)
            tell((epoch + 1) / plan.epochs, f"epoch {epoch + 1} of {plan.epochs}: {self._score():.4f}")
            if epoch + 1 < plan.epochs:
                _put(weights, latest)
        if is_clearly_worse(self.network, self.numbers(), numbers_before, _truth(self.validation), draw):
            tell(1.0, "the refitted head alone is better")
            _put(weights, before)

    def _score(self) -> float:
        """On the validation items; 0.5 where there are none."""
        return mean_auc(self.network, self.numbers(), _truth(self.validation))

    def numbers(self) -> npt.NDArray[np.float64]:
        """Of the head, for the validation items."""
        size = self.plan.batch
        with self.torch.no_grad():
            parts = [
                self.graph(self.torch.from_numpy(self.held[at : at + size])).numpy()
                for at in range(0, len(self.held), size)
            ]
        return np.concatenate([np.zeros((0, self.network.outputs)), *parts])

    def _groups(self) -> list[dict[str, Any]]:
        """Each weight moves by a share of its own size: the head's may be thousands of times those of the layers."""
        weights = self.graph.weights.values()
        sizes = [float(weight.detach().square().mean().sqrt()) for weight in weights]
        return [
            {"params": [weight], "lr": self.plan.step * max(size, _SIZE_MIN)}
            for weight, size in zip(weights, sizes, strict=True)
        ]

    def _mixed_loss(self, rows: npt.NDArray[np.intp], draw: np.random.Generator) -> Any:
        """Of training items as they may look as well."""
        inputs, share, others = mixed(varied(self.inputs[rows], draw, self.plan.variation), draw, self.plan.mixup)
        numbers = self.graph(self.torch.from_numpy(inputs))
        return share * self._loss(numbers, rows) + (1 - share) * self._loss(numbers, rows[others])

    def _loss(self, numbers: Any, rows: npt.NDArray[np.intp]) -> Any:
        """Of what the head says where the training items of these rows would be right."""
        torch, functional, network = self.torch, self.torch.nn.functional, self.network
        classes = torch.from_numpy(self.training.classes[rows])
        weights = torch.from_numpy(self.training.weights[rows]).float()
        if network.outputs == 1:
            each = functional.binary_cross_entropy_with_logits(numbers[:, 0], classes.float(), reduction="none")
        elif network.activation is Activation.SIGMOID:
            wanted = functional.one_hot(classes, network.outputs).float()
            each = functional.binary_cross_entropy_with_logits(numbers, wanted, reduction="none").sum(dim=1)
        else:
            each = functional.cross_entropy(numbers, classes, reduction="none")
        return (each * weights).sum() / weights.sum()


def _contents(network: Network, items: Sequence[Item]) -> Array:
    port = network.model.inputs[0]
    shape = [-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    dtype = port.get_element_type().to_dtype()
    read = [read_input(item.path, shape, dtype) for item in items]
    kept = [content for content in read if content is not None]
    if len({content.shape for content in kept}) > 1:
        raise TrainerError("the contents have several sizes; bring them to one, or use the trainer head")
    return np.concatenate(kept) if kept else np.zeros((0, 1), dtype)


def _copies(weights: Sequence[Any]) -> list[Any]:
    return [weight.detach().clone() for weight in weights]


def _average(averaged: Sequence[Any], weights: Sequence[Any], kept: float) -> None:
    """A step of the moving average; the first ones keep less, so that a short training leaves its beginning as well."""
    for average, weight in zip(averaged, weights, strict=True):
        average.lerp_(weight.detach(), 1 - kept)


def _put(weights: Sequence[Any], values: Sequence[Any]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.detach().copy_(value)


def _truth(examples: Examples) -> Truth:
    return Truth(classes=examples.classes, weights=examples.weights, lines=tuple(item.line for item in examples.items))


if __name__ == "__main__":
    run(train)
