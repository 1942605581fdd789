"""Where the controller is and how to prove who asks: operator.toml, then the environment, then what the caller says."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from platformdirs import user_config_path

from controlplane.client import limits
from controlplane.client.errors import InvalidInputError

CONFIG_VARIABLE = "LINESIDE_CONFIG"
CONTROLLER_VARIABLE = "LINESIDE_CONTROLLER"
TOKEN_VARIABLE = "LINESIDE_TOKEN"
_REMEDY_FILE = (
    f"name the operator.toml that `lineside-controlplane init` wrote, with --config FILE or {CONFIG_VARIABLE}=FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """All that a client needs to know, as operator.toml has it."""

    controller: str
    """"host:port" of the controller's API listener."""
    token: str
    """Operator token, `lso1.<secret>`."""
    ca_certificate: str
    """PEM of the CA that signed the controller's certificate; no other is trusted."""

    def __post_init__(self) -> None:
        host, colon, port = self.controller.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise InvalidInputError(
                f"{self.controller!r} is not an address", field="controller", remedy='write "host:port"'
            )
        if not self.token or not (self.token.isascii() and self.token.isprintable()):
            raise InvalidInputError("not an operator token", field="token", remedy="copy it from operator.toml")
        if "BEGIN CERTIFICATE" not in self.ca_certificate:
            raise InvalidInputError(
                "not a PEM certificate", field="ca_certificate", remedy="copy it from the controller's operator.toml"
            )

    def __repr__(self) -> str:
        """Without the token: configurations end up in notebooks."""
        return f"OperatorConfig(controller={self.controller!r})"


def default_path() -> Path:
    """Return where operator.toml is looked for when nobody names one: the user's configuration folder."""
    return user_config_path("lineside") / "operator.toml"


def load_config(
    path: Path | None = None, *, controller: str | None = None, environment: Mapping[str, str] | None = None
) -> OperatorConfig:
    """Read `path`, else LINESIDE_CONFIG, else the user's operator.toml; then apply the overrides.

    `controller` wins over LINESIDE_CONTROLLER, which wins over the file. Raises InvalidInputError.
    """
    environment = os.environ if environment is None else environment
    chosen = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else default_path())
    config = _parse(chosen)
    if override := controller or environment.get(CONTROLLER_VARIABLE):
        config = replace(config, controller=override)
    if token := environment.get(TOKEN_VARIABLE):
        config = replace(config, token=token)
    return config


def _parse(path: Path) -> OperatorConfig:
    try:
        with path.open("rb") as file:
            raw = file.read(limits.CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", field="config", remedy=_REMEDY_FILE) from error
    if len(raw) > limits.CONFIG_BYTES_MAX:
        raise InvalidInputError(f"{path} is too large to be an operator.toml", field="config", remedy=_REMEDY_FILE)
    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not TOML: {error}", field="config", remedy=_REMEDY_FILE) from error
    wanted = {field.name for field in fields(OperatorConfig)}
    if unknown := sorted(table.keys() - wanted):
        raise InvalidInputError(
            f"unknown key in {path}", field=unknown[0], remedy=f"keep to {', '.join(sorted(wanted))}"
        )
    for key in sorted(wanted):
        if not isinstance(table.get(key), str):
            raise InvalidInputError(f"no such text in {path}", field=key, remedy=_REMEDY_FILE)
    return OperatorConfig(**table)
