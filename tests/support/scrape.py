"""Reads metrics as Prometheus does: over HTTP, in its text format."""

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Scrape:
    """Values by name and labels."""

    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]
    types: Mapping[str, str]

    def value(self, name: str, **labels: str) -> float:
        """Raises KeyError where there is no such series."""
        return self.values[name, frozenset(labels.items())]

    def find(self, name: str, **labels: str) -> float:
        """0 where there is no such series."""
        return self.values.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels among theirs."""
        return sum(
            value for (each, has), value in self.values.items() if each == name and labels.items() <= dict(has).items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for each, labels in self.values if each == name]


def parse(text: str) -> Scrape:
    """Fails where a series comes twice."""
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    types = {}
    for family in text_string_to_metric_families(text):
        types[family.name] = family.type
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in values, f"{key} comes twice"
            values[key] = sample.value
    return Scrape(values, types)


def scrape(address: str) -> Scrape:
    with OPENER.open(f"http://{address}/metrics", timeout=20) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return parse(response.read().decode())
