"""A BERT that embeds sentences, built in OpenVINO's operations from a checkpoint in safetensors, and its tokenizer.

`input_ids` and `attention_mask`, INT64 [batch, tokens], both free; `sentence_embedding`, FP32 [batch, width], is the
mean over the tokens that the mask keeps, of length 1. Embeddings of sentences that mean the like are close.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

Array = npt.NDArray[Any]
_TYPES = {"F32": np.float32, "I64": np.int64}
_PREFIX = 8
_EPSILON = 1e-12


def sentence_embedder_ir(checkpoint: Path, config: Mapping[str, Any], target: Path) -> Path:
    """Write the model to `target`.xml; the weights are those of the checkpoint, in full precision."""
    network = _Network(weights=_safetensors(checkpoint), heads=config["num_attention_heads"])
    ids, mask = (ops.parameter([-1, -1], ov.Type.i64, name=name) for name in ("input_ids", "attention_mask"))
    for parameter in (ids, mask):
        parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
    hidden = network.embed(ids)
    kept = ops.convert(mask, "f32")
    # Added to the scores: nothing for a token that counts, minus very much for padding.
    bias = ops.multiply(ops.subtract(ops.unsqueeze(kept, _axes(1, 2)), _number(1.0)), _number(1e9))
    for layer in range(config["num_hidden_layers"]):
        hidden = network.layer(hidden, bias, f"encoder.layer.{layer}")
    weight = ops.unsqueeze(kept, _axes(2))
    total = ops.reduce_sum(ops.multiply(hidden, weight), _axes(1), keep_dims=False)
    mean = ops.divide(total, ops.maximum(ops.reduce_sum(weight, _axes(1), keep_dims=False), _number(1e-9)))
    embedding = ops.normalize_l2(mean, _axes(1), eps=1e-12, eps_mode="max")
    embedding.output(0).get_tensor().set_names({"sentence_embedding"})
    target.parent.mkdir(parents=True, exist_ok=True)
    model = ov.Model([embedding], [ids, mask], "sentence-embedder")
    model.set_rt_info("embedding", ["model_info", "model_type"])
    ov.save_model(model, target, compress_to_fp16=False)
    return target


def tokenize(texts: Sequence[str], vocabulary: Sequence[str], *, tokens: int) -> tuple[Array, Array]:
    """Ids and mask [texts, tokens], padded; plain words only, as WordPiece splits them."""
    known = {piece: number for number, piece in enumerate(vocabulary)}
    ids = np.zeros((len(texts), tokens), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        pieces = ["[CLS]", *(piece for word in text.lower().split() for piece in _pieces(word, known)), "[SEP]"]
        assert len(pieces) <= tokens, text
        ids[row, : len(pieces)] = [known[piece] for piece in pieces]
        mask[row, : len(pieces)] = 1
    return ids, mask


def _pieces(word: str, known: Mapping[str, int]) -> list[str]:
    pieces: list[str] = []
    while word:
        prefix = "##" if pieces else ""
        length = next(length for length in range(len(word), 0, -1) if prefix + word[:length] in known)
        pieces.append(prefix + word[:length])
        word = word[length:]
    return pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """The layers of Devlin et al., 2018, over named weights."""

    weights: Mapping[str, Array]
    heads: int

    def embed(self, ids: Any) -> Any:
        tokens = ops.gather(ops.shape_of(ids), _axes(1), _axes(0))
        places = ops.range(ops.constant(np.int64(0)), ops.squeeze(tokens, _axes(0)), ops.constant(np.int64(1)), "i64")
        zero = ops.constant(np.int64(0))
        words = ops.gather(self._constant("embeddings.word_embeddings.weight"), ids, zero)
        positions = ops.gather(self._constant("embeddings.position_embeddings.weight"), places, zero)
        kind = ops.constant(self.weights["embeddings.token_type_embeddings.weight"][0])
        return self._normal(ops.add(ops.add(words, positions), kind), "embeddings.LayerNorm")

    def layer(self, hidden: Any, bias: Any, name: str) -> Any:
        query, key, value = (
            self._split(self._dense(hidden, f"{name}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        width = self.weights["embeddings.LayerNorm.weight"].size // self.heads
        scores = ops.multiply(ops.matmul(query, key, False, True), _number(1 / math.sqrt(width)))
        mixed = ops.matmul(ops.softmax(ops.add(scores, bias), 3), value, False, False)
        joined = ops.reshape(ops.transpose(mixed, _axes(0, 2, 1, 3)), _axes(0, 0, -1), special_zero=True)
        attended = self._dense(joined, f"{name}.attention.output.dense")
        hidden = self._normal(ops.add(hidden, attended), f"{name}.attention.output.LayerNorm")
        wide = ops.gelu(self._dense(hidden, f"{name}.intermediate.dense"), "erf")
        return self._normal(ops.add(hidden, self._dense(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm")

    def _split(self, hidden: Any) -> Any:
        parts = ops.reshape(hidden, _axes(0, 0, self.heads, -1), special_zero=True)
        return ops.transpose(parts, _axes(0, 2, 1, 3))

    def _dense(self, hidden: Any, name: str) -> Any:
        product = ops.matmul(hidden, self._constant(f"{name}.weight"), False, True)
        return ops.add(product, self._constant(f"{name}.bias"))

    def _normal(self, hidden: Any, name: str) -> Any:
        centred = ops.mvn(hidden, _axes(-1), True, _EPSILON, "inside_sqrt")
        return ops.add(ops.multiply(centred, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> Any:
        return ops.constant(self.weights[name])


def _safetensors(path: Path) -> dict[str, Array]:
    content = path.read_bytes()
    begin = _PREFIX + int.from_bytes(content[:_PREFIX], "little")
    header, body = json.loads(content[_PREFIX:begin]), memoryview(content)[begin:]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], _TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _axes(*axes: int) -> Any:
    return ops.constant(np.array(axes, np.int64))


def _number(value: float) -> Any:
    return ops.constant(np.float32(value))
