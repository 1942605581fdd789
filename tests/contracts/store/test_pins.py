"""What PinRepository promises."""

from controlplane.app.ports import Store
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.pin import Pin
from tests.support.factories import after_seconds


def make_pin(agent_id: str, model_id: str, version: int = 1) -> Pin:
    return Pin(
        agent_id=AgentId(agent_id),
        model_id=ModelId(model_id),
        version=version,
        reason="reference station",
        create_time=after_seconds(1),
        actor="operators/anna",
    )


async def test_a_pin_takes_the_place_of_an_earlier_one(store: Store) -> None:
    async with store.write() as work:
        await work.pins.put(make_pin("st-1", "solar"))
        await work.pins.put(make_pin("st-1", "solar", version=2))
        assert await work.pins.list_all() == [make_pin("st-1", "solar", version=2)]


async def test_a_pin_is_removed_once(store: Store) -> None:
    async with store.write() as work:
        await work.pins.put(make_pin("st-1", "solar"))
        await work.pins.put(make_pin("st-1", "weld"))
        assert await work.pins.remove(AgentId("st-1"), ModelId("solar"))
        assert not await work.pins.remove(AgentId("st-1"), ModelId("solar"))
        assert await work.pins.list_all() == [make_pin("st-1", "weld")]


async def test_pins_are_listed_by_agent_then_model(store: Store) -> None:
    pins = [make_pin("a", "solar"), make_pin("a", "weld"), make_pin("a-1", "solar"), make_pin("b", "solar")]
    async with store.write() as work:
        for pin in reversed(pins):
            await work.pins.put(pin)
    async with store.read() as work:
        assert await work.pins.list_all() == pins
        assert await work.pins.list([AgentId("b"), AgentId("a"), AgentId("nobody")]) == [pins[0], pins[1], pins[3]]
        assert await work.pins.list([]) == []
