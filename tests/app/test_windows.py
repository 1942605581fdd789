"""Maintenance windows: what opens when, in real time zones, and what is refused."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from controlplane import limits
from controlplane.app.windows import Windows, check_windows
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.rollout import MaintenanceWindow, WindowScope

HOUR = 3600.0


def make_maintenance_window(**overrides: object) -> MaintenanceWindow:
    fields: dict[str, object] = {"selector": "", "cron": "0 2 * * *", "duration_seconds": HOUR, "time_zone": "UTC"}
    return MaintenanceWindow(**(fields | overrides))  # type: ignore[arg-type]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opened(window: MaintenanceWindow, text: str) -> bool:
    return Windows([window]).swap_open({}, utc(text))


@pytest.mark.parametrize(
    ("time", "is_open"),
    [
        ("2026-03-10 01:59:59.999999", False),
        ("2026-03-10 02:00:00", True),
        ("2026-03-10 02:59:59.999999", True),
        ("2026-03-10 03:00:00", False),
    ],
)
def test_a_window_is_open_from_its_start_until_its_end(time: str, is_open: bool) -> None:
    assert opened(make_maintenance_window(), time) is is_open


@pytest.mark.parametrize(
    ("time", "is_open"),
    [
        # 02:30 is skipped on 2026-03-29: the window opens where the clocks stand after the change, 03:00 = 01:00 UTC.
        ("2026-03-29 00:59:59", False),
        ("2026-03-29 01:00:00", True),
        ("2026-03-29 01:59:59", True),
        ("2026-03-29 02:00:00", False),
        # 02:30 comes twice on 2026-10-25, at 00:30 and at 01:30 UTC: the first counts.
        ("2026-10-25 00:29:59", False),
        ("2026-10-25 00:30:00", True),
        ("2026-10-25 01:29:59", True),
        ("2026-10-25 01:30:00", False),
    ],
)
def test_summer_time_moves_a_window_and_never_doubles_or_drops_it(time: str, is_open: bool) -> None:
    assert opened(make_maintenance_window(cron="30 2 * * *", time_zone="Europe/Berlin"), time) is is_open


@pytest.mark.parametrize(("day", "end"), [("2026-03-28", "2026-03-29 07:00:00"), ("2026-10-24", "2026-10-25 07:00:00")])
def test_a_window_over_a_change_of_the_clocks_lasts_as_long_in_real_time(day: str, end: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.fromisoformat(f"{day} 22:00:00").replace(tzinfo=zone).astimezone(UTC)
    window = make_maintenance_window(cron="0 22 * * *", time_zone="Europe/Berlin", duration_seconds=10 * HOUR)
    windows = Windows([window])
    last = start + timedelta(hours=10) - timedelta(microseconds=1)
    assert windows.swap_open({}, start)
    assert windows.swap_open({}, last)
    assert not windows.swap_open({}, start + timedelta(hours=10))
    assert (start + timedelta(hours=10)).date() == utc(end).date()


def test_a_window_is_read_in_its_own_time_zone() -> None:
    window = make_maintenance_window(cron="0 2 * * SAT", time_zone="Asia/Shanghai")
    assert opened(window, "2026-03-06 18:00:00")
    assert not opened(window, "2026-03-07 02:00:00")


def test_a_window_longer_than_its_period_is_always_open() -> None:
    windows = Windows([make_maintenance_window(cron="0 * * * *", duration_seconds=1.5 * HOUR)])
    start = utc("2026-03-10 00:00:00")
    assert all(windows.swap_open({}, start + timedelta(minutes=minutes)) for minutes in range(0, 600, 7))


@pytest.mark.parametrize("name", ["0", "7", "SUN", "sun"])
def test_zero_and_seven_and_sun_are_sunday(name: str) -> None:
    windows = Windows([make_maintenance_window(cron=f"0 2 * * {name}")])
    week = [datetime(2026, 3, 1 + day, 2, 30, tzinfo=UTC) for day in range(7)]
    assert [time.weekday() for time in week if windows.swap_open({}, time)] == [6]


def test_where_both_day_fields_are_named_one_is_enough() -> None:
    windows = Windows([make_maintenance_window(cron="0 2 13 * FRI")])
    month = [datetime(2026, 4, day, 2, 30, tzinfo=UTC) for day in range(1, 31)]
    assert [time.day for time in month if windows.swap_open({}, time)] == [3, 10, 13, 17, 24]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 0 31 2,4,6 *"}, "cron"),
        ({"cron": "0 25 * * *"}, "cron"),
        ({"cron": "@daily"}, "cron"),
        ({"cron": "0 0 2 * * *"}, "cron"),
        ({"cron": "*/0 * * * *"}, "cron"),
        ({"cron": ""}, "cron"),
        ({"cron": "1," * 200 + "1 * * * *"}, "cron"),
        ({"duration_seconds": 0.0}, "duration"),
        ({"duration_seconds": -1.0}, "duration"),
        ({"duration_seconds": float("nan")}, "duration"),
        ({"duration_seconds": float("inf")}, "duration"),
        ({"duration_seconds": limits.WINDOW_SECONDS_MAX + 1}, "duration"),
        ({"time_zone": ""}, "time_zone"),
        ({"time_zone": "Europe"}, "time_zone"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "a" * 300}, "time_zone"),
        ({"time_zone": "a\0b"}, "time_zone"),
        ({"selector": "site in"}, "selector"),
    ],
)
def test_a_refusal_names_the_part_of_the_window_and_the_remedy(change: dict[str, object], part: str) -> None:
    wrong = make_maintenance_window(**change)
    with pytest.raises(FieldInvalidError) as refused:
        check_windows([make_maintenance_window(), wrong])
    assert refused.value.field == f"rollout.strategy.windows[1].{part}"
    assert refused.value.remedy


def test_too_many_windows_are_refused() -> None:
    check_windows([make_maintenance_window()] * limits.WINDOWS_MAX)
    with pytest.raises(FieldInvalidError) as refused:
        check_windows([make_maintenance_window()] * (limits.WINDOWS_MAX + 1), field="strategy.windows")
    assert refused.value.field == "strategy.windows"


def test_an_agent_that_no_window_selects_is_not_bound() -> None:
    windows = Windows([make_maintenance_window(selector="site=suzhou")])
    noon = utc("2026-03-10 12:00:00")
    assert windows.swap_open({"site": "leipzig"}, noon)
    assert not windows.swap_open({"site": "suzhou"}, noon)
    assert windows.next_open(WindowScope.SWAP, {"site": "leipzig"}, noon) == noon


def test_one_open_window_of_several_is_enough() -> None:
    night = make_maintenance_window()
    noon = make_maintenance_window(selector="line=3", cron="0 12 * * *")
    windows = Windows([night, noon])
    time = utc("2026-03-10 12:10:00")
    assert windows.swap_open({"line": "3"}, time)
    assert not windows.swap_open({"line": "4"}, time)


def test_scopes_bind_apart() -> None:
    windows = Windows([make_maintenance_window(scope=WindowScope.START)])
    noon = utc("2026-03-10 12:00:00")
    assert windows.swap_open({}, noon)
    assert not windows.start_open({}, noon)


def test_the_next_opening_is_the_first_of_all_that_bind() -> None:
    windows = Windows([make_maintenance_window(), make_maintenance_window(cron="0 20 * * *")])
    time = utc("2026-03-10 12:00:00")
    assert windows.next_open(WindowScope.SWAP, {}, time) == utc("2026-03-10 20:00:00")
    assert windows.next_open(WindowScope.SWAP, {}, utc("2026-03-10 20:10:00")) == utc("2026-03-10 20:10:00")


def test_many_agents_cost_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows([make_maintenance_window()])
    evaluated: list[object] = []

    def count(cron: str, time: datetime) -> CronSim:
        evaluated.append(time)
        return CronSim(cron, time)

    monkeypatch.setattr("controlplane.app.windows.CronSim", count)
    now = utc("2026-03-10 02:10:00")
    assert all(windows.swap_open({"agent": str(number)}, now) for number in range(1000))
    assert len(evaluated) == 1


def _named(cron_minute: int, hours: tuple[int, ...], weekdays: tuple[int, ...], time: datetime) -> bool:
    return time.minute == cron_minute and time.hour in hours and (time.weekday() + 1) % 7 in weekdays


@given(
    minute=st.integers(0, 59),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=4),
    weekdays=st.sets(st.integers(0, 6), min_size=1),
    duration_minutes=st.integers(1, 40 * 60),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "Asia/Kolkata"]),
    offsets=st.lists(st.integers(0, 7 * 24 * 60 * 60), min_size=1, max_size=8),
)
def test_open_is_exactly_within_start_and_start_plus_duration(
    *, minute: int, hours: set[int], weekdays: set[int], duration_minutes: int, zone: str, offsets: list[int]
) -> None:
    cron = f"{minute} {','.join(map(str, hours))} * * {','.join(map(str, weekdays))}"
    window = make_maintenance_window(cron=cron, time_zone=zone, duration_seconds=duration_minutes * 60.0)
    windows = Windows([window])
    first = datetime.combine(date(2026, 3, 2), datetime.min.time(), tzinfo=UTC)
    before = timedelta(minutes=duration_minutes)
    minutes = (first - before + timedelta(minutes=step) for step in range(8 * 24 * 60 + duration_minutes))
    starts = [
        time for time in minutes if _named(minute, tuple(hours), tuple(weekdays), time.astimezone(ZoneInfo(zone)))
    ]
    for offset in offsets:
        now = first + timedelta(seconds=offset)
        assert windows.swap_open({}, now) == any(start <= now < start + before for start in starts)
        coming = windows.next_open(WindowScope.SWAP, {}, now)
        following = next((start for start in starts if start > now), None)
        assert coming == now if windows.swap_open({}, now) else following is None or coming == following
