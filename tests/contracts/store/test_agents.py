"""What AgentRepository and CertificateRepository promise."""

from dataclasses import replace

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.inventory import AgentRecord, ObservedState
from tests.support.factories import (
    ST_1,
    ST_2,
    after_seconds,
    make_agent,
    make_certificate,
    make_desired,
    make_device,
    make_host,
    make_observation,
    make_observed_slot,
)


@pytest.fixture
async def with_agent(store: Store) -> Store:
    async with store.write() as work:
        await work.agents.add(make_agent())
    return store


async def test_get_names_what_is_missing(store: Store) -> None:
    async with store.read() as work:
        assert await work.agents.find(ST_1) is None
        with pytest.raises(ResourceNotFoundError, match="agents/st-1"):
            await work.agents.get(ST_1)


async def test_adding_twice_is_refused(with_agent: Store) -> None:
    async with with_agent.write() as work:
        with pytest.raises(ResourceExistsError, match="agents/st-1"):
            await work.agents.add(make_agent(uid="another"))


async def test_an_agent_that_was_never_heard_of_has_no_observation(with_agent: Store) -> None:
    async with with_agent.read() as work:
        assert await work.agents.get(ST_1) == AgentRecord(agent=make_agent())


async def test_save_keeps_labels_and_revocation(with_agent: Store) -> None:
    async with with_agent.write() as work:
        saved = await work.agents.save(make_agent(labels={"line": "3", "größe": "ü"}, revoked=True))
        assert saved.revision == 1
        assert (await work.agents.get(ST_1)).agent == saved
        with pytest.raises(StaleWriteError):
            await work.agents.save(make_agent())


async def test_observations_do_not_change_the_agents_revision(with_agent: Store) -> None:
    async with with_agent.write() as work:
        await work.agents.record([make_observation()])
        assert (await work.agents.get(ST_1)).agent.revision == 0


async def test_an_observation_replaces_the_one_before(with_agent: Store) -> None:
    later = make_observation(
        observed=ObservedState(
            generation=2, slots=(make_observed_slot(slot="weld"), make_observed_slot(slot="solar", serving_time=None))
        ),
        receive_time=after_seconds(5),
        host=make_host(disk_free_bytes=7),
        devices=(make_device(), make_device(device="GPU.0")),
    )
    async with with_agent.write() as work:
        await work.agents.record([make_observation()])
        assert (await work.agents.get(ST_1)).observation == make_observation()
        await work.agents.record([later])
        assert (await work.agents.get(ST_1)).observation == later


async def test_an_observation_without_host_or_devices_keeps_the_stored_ones(with_agent: Store) -> None:
    async with with_agent.write() as work:
        await work.agents.record([make_observation()])
        await work.agents.record([make_observation(host=None, devices=None, receive_time=after_seconds(5))])
        assert (await work.agents.get(ST_1)).observation == make_observation(receive_time=after_seconds(5))
        await work.agents.record([make_observation(host=None, devices=())])
        assert (await work.agents.get(ST_1)).observation == make_observation(devices=())


async def test_a_first_observation_may_come_without_host_and_devices(with_agent: Store) -> None:
    async with with_agent.write() as work:
        await work.agents.record([make_observation(host=None, devices=None)])
        assert (await work.agents.get(ST_1)).observation == make_observation(host=None, devices=None)


async def test_a_batch_of_observations_is_recorded_whole(store: Store) -> None:
    ids = [f"st-{number:04}" for number in range(1200)]
    async with store.write() as work:
        for agent_id in ids:
            await work.agents.add(make_agent(id=agent_id))
        await work.agents.record([])
        await work.agents.record([make_observation(agent_id=agent_id) for agent_id in reversed(ids)])
    async with store.read() as work:
        records = await work.agents.list_all()
    assert [record.agent.id for record in records] == ids
    assert all(record.observation == make_observation(agent_id=record.agent.id) for record in records)


async def test_agents_are_paged_by_id(store: Store) -> None:
    async with store.write() as work:
        for agent_id in ("ls-1", "st-2", "st-10", "st-1"):
            await work.agents.add(make_agent(id=agent_id))
        await work.agents.record([make_observation(agent_id="st-10")])
        first = await work.agents.list(after=None, limit=3)
        rest = await work.agents.list(after=first[-1].agent.id, limit=3)
    assert [record.agent.id for record in first] == ["ls-1", "st-1", "st-10"]
    assert first[-1].observation == make_observation(agent_id="st-10")
    assert [record.agent.id for record in rest] == ["st-2"]


async def test_a_record_shows_generation_and_the_last_certificates_expiry(with_agent: Store) -> None:
    renewed = make_certificate(serial="02", not_before=after_seconds(60), expire_time=after_seconds(9_000_000))
    async with with_agent.write() as work:
        await work.desired.save([make_desired(generation=4)])
        await work.certificates.add(renewed)
        await work.certificates.add(make_certificate())
        await work.agents.add(make_agent(id="st-2"))
        await work.certificates.add(make_certificate(serial="03", agent_id=ST_2, expire_time=after_seconds(9e8)))
        record = await work.agents.get(ST_1)
        assert (await work.agents.list_all())[0] == record
    assert (record.desired_generation, record.certificate_expire_time) == (4, renewed.expire_time)


async def test_certificates_are_found_by_serial_and_by_key(with_agent: Store) -> None:
    older, newer = make_certificate(), make_certificate(serial="00", not_before=after_seconds(60))
    async with with_agent.write() as work:
        await work.certificates.add(newer)
        await work.certificates.add(older)
        assert await work.certificates.find("01") == older
        assert await work.certificates.find("ff") is None
        assert await work.certificates.find_by_key(ST_1, older.public_key_sha256) == newer
        assert await work.certificates.find_by_key(ST_2, older.public_key_sha256) is None
        assert await work.certificates.find_by_key(ST_1, "00" * 32) is None
        with pytest.raises(ResourceExistsError):
            await work.certificates.add(replace(older, agent_id=ST_2))


async def test_the_revoked_are_listed_by_id_alone(store: Store) -> None:
    async with store.write() as work:
        await work.agents.add(make_agent())
        await work.agents.add(make_agent(id="st-2", revoked=True))
        assert await work.agents.list_revoked() == {ST_2}
        await work.agents.save(make_agent(revoked=True))
        assert await work.agents.list_revoked() == {ST_1, ST_2}


async def test_an_observation_of_an_unknown_agent_is_refused(store: Store) -> None:
    async def record() -> None:
        async with store.write() as work:
            await work.agents.record([make_observation()])

    with pytest.raises(ResourceNotFoundError):
        await record()


async def test_certificates_of_many_serials_come_at_once(store: Store) -> None:
    certificates = [make_certificate(serial=f"{number:x}") for number in range(1, 4)]
    async with store.write() as work:
        for certificate in certificates:
            await work.certificates.add(certificate)
    async with store.read() as work:
        found = await work.certificates.find_all(["1", "3", "ff"])
    assert found == {"1": certificates[0], "3": certificates[2]}
