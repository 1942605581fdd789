"""Selectors: which agents, in the Kubernetes label-selector syntax.

`site=suzhou,line in (3,4),station,!retired,device.npu`: requirements joined by commas, all of which must
hold. As in Kubernetes, `!=` and `notin` also hold where the key is absent. Beside its own labels an agent
has facts, whose keys are reserved: `agent` (its id), `os`, and `device.cpu`, `device.gpu`, `device.npu`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import assert_never

from controlplane.domain.agent_memo import AgentMemo
from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.domain.inventory import AgentRecord


class Operator(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition on one key; `values` are empty exactly for EXISTS and NOT_EXISTS."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case Operator.IN:
                return self.key in labels and labels[self.key] in self.values
            case Operator.NOT_IN:
                return self.key not in labels or labels[self.key] not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.NOT_EXISTS:
                return self.key not in labels
            case _:
                assert_never(self.operator)

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case Operator.IN:
                return f"{self.key}={values}" if len(self.values) == 1 else f"{self.key} in ({values})"
            case Operator.NOT_IN:
                return f"{self.key}!={values}" if len(self.values) == 1 else f"{self.key} notin ({values})"
            case Operator.EXISTS:
                return self.key
            case Operator.NOT_EXISTS:
                return f"!{self.key}"
            case _:
                assert_never(self.operator)


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all hold; never empty. `str()` of it parses to an equal one."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def is_reserved_key(key: str) -> bool:
    """Whether a label key is a fact's and so cannot be set by hand."""
    return key in {"agent", "os"} or key.startswith("device.")


def facts(record: AgentRecord) -> Mapping[str, str]:
    """Return the labels that selectors see: the agent's own, and its facts under the reserved keys.

    A label under a reserved key counts for nothing, also where the fact is absent: nobody can label
    himself an NPU. `os` and `device.*` appear with the agent's first sync; a device's value is "true".
    """
    return _FACTS(record)


def _find_facts(record: AgentRecord) -> Mapping[str, str]:
    labels = {key: value for key, value in record.agent.labels.items() if not is_reserved_key(key)}
    labels["agent"] = record.agent.id
    observation = record.observation
    if observation is not None and observation.host is not None and observation.host.os:
        labels["os"] = observation.host.os.lower()
    for device in (observation.devices or ()) if observation is not None else ():
        labels["device." + device.device.partition(".")[0].lower()] = "true"
    return MappingProxyType(labels)


_FACTS = AgentMemo(_find_facts)


def parse_selector(text: str, *, field: str) -> Selector:
    """Return the selector, or raise FieldInvalidError (SELECTOR_INVALID) saying where and what to write."""
    if not text.strip():
        raise _refusal("a selector cannot be empty", field=field, remedy="write for example line=3,station in (1,2)")
    tokens = _Tokens(text, field)
    requirements = [_parse_requirement(tokens)]
    while tokens.peek().kind is _Kind.COMMA:
        tokens.take()
        requirements.append(_parse_requirement(tokens))
    tokens.expect(_Kind.END, "put a comma between requirements")
    return Selector(tuple(requirements))


class _Kind(StrEnum):
    WORD = "a word"
    EQUAL = "="
    NOT_EQUAL = "!="
    NOT = "!"
    COMMA = ","
    OPEN = "("
    CLOSE = ")"
    END = "the end"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    position: int


_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9_./-]+)|(?P<sign>==|=|!=|!|,|\(|\)))")
_SIGNS: Mapping[str, _Kind] = MappingProxyType(
    {"==": _Kind.EQUAL, "=": _Kind.EQUAL, "!=": _Kind.NOT_EQUAL, "!": _Kind.NOT, ",": _Kind.COMMA}
    | {"(": _Kind.OPEN, ")": _Kind.CLOSE}
)
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def is_label_key(text: str) -> bool:
    """Whether Kubernetes would take it as a label key: a name, after an optional DNS prefix and a slash."""
    prefix, slash, name = text.rpartition("/")
    return bool(_NAME.fullmatch(name)) and (not slash or bool(_PREFIX.fullmatch(prefix)))


def is_label_value(text: str) -> bool:
    """Whether Kubernetes would take it as a label value: a name, or nothing."""
    return not text or bool(_NAME.fullmatch(text))


def _refusal(message: str, *, field: str, remedy: str) -> FieldInvalidError:
    return FieldInvalidError(message, field=field, remedy=remedy, reason=Reason.SELECTOR_INVALID)


def _scan(text: str, field: str) -> Iterator[_Token]:
    end = len(text.rstrip())
    position = 0
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise _refusal(
                f"{text[at]!r} at position {at + 1} does not belong in a selector",
                field=field,
                remedy="use letters, digits, '-', '_', '.', '/' and the operators =, ==, !=, in, notin and !",
            )
        position = found.end()
        if word := found["word"]:
            yield _Token(_Kind.WORD, word, found.start("word"))
        else:
            yield _Token(_SIGNS[found["sign"]], found["sign"], found.start("sign"))
    yield _Token(_Kind.END, "", end)


class _Tokens:
    """The tokens of one text, read from left to right."""

    def __init__(self, text: str, field: str) -> None:
        self._tokens = tuple(_scan(text, field))
        self._next = 0
        self.field = field

    def peek(self) -> _Token:
        return self._tokens[self._next]

    def take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def expect(self, kind: _Kind, remedy: str) -> _Token:
        token = self.take()
        if token.kind is not kind:
            what = repr(token.text) if token.text else str(_Kind.END)
            raise _refusal(
                f"expected {kind} and found {what} at position {token.position + 1}", field=self.field, remedy=remedy
            )
        return token


def _parse_requirement(tokens: _Tokens) -> Requirement:
    if tokens.peek().kind is _Kind.NOT:
        tokens.take()
        return Requirement(key=_parse_key(tokens), operator=Operator.NOT_EXISTS)
    key = _parse_key(tokens)
    token = tokens.peek()
    if token.kind in {_Kind.EQUAL, _Kind.NOT_EQUAL}:
        tokens.take()
        operator = Operator.IN if token.kind is _Kind.EQUAL else Operator.NOT_IN
        return Requirement(key=key, operator=operator, values=frozenset({_parse_value(tokens)}))
    if token.kind is _Kind.WORD and token.text in {"in", "notin"}:
        tokens.take()
        return Requirement(key=key, operator=Operator(token.text), values=_parse_values(tokens))
    return Requirement(key=key, operator=Operator.EXISTS)


def _parse_key(tokens: _Tokens) -> str:
    token = tokens.expect(_Kind.WORD, "name a label, for example line=3")
    if not is_label_key(token.text):
        raise _refusal(
            f"{token.text!r} at position {token.position + 1} is not a label key",
            field=tokens.field,
            remedy="begin and end it with a letter or digit, and use at most 63 characters",
        )
    return token.text


def _parse_value(tokens: _Tokens) -> str:
    """A word, or nothing where the value is the empty one."""
    if tokens.peek().kind in {_Kind.COMMA, _Kind.CLOSE, _Kind.END}:
        return ""
    token = tokens.expect(_Kind.WORD, "write a value after the operator")
    if not is_label_value(token.text):
        raise _refusal(
            f"{token.text!r} at position {token.position + 1} is not a label value",
            field=tokens.field,
            remedy="begin and end it with a letter or digit, and use at most 63 characters",
        )
    return token.text


def _parse_values(tokens: _Tokens) -> frozenset[str]:
    tokens.expect(_Kind.OPEN, "put the values in parentheses, for example line in (3,4)")
    values = {_parse_value(tokens)}
    while tokens.peek().kind is _Kind.COMMA:
        tokens.take()
        values.add(_parse_value(tokens))
    tokens.expect(_Kind.CLOSE, "close the list of values with ')'")
    return frozenset(values)
