"""The log: every line arrives whole, printable and in order, whatever the events hold and the disk does."""

import json
import os
import re
import resource
import signal
import threading
import time
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver import events
from mailserver.config import schema
from mailserver.observe import log as log_module
from mailserver.observe.lines import json_lines, text_lines
from mailserver.observe.log import Log

NOW = 1_795_363_766.123456
text = st.text(st.characters(), max_size=40)  # all code points, lone surrogates included
happenings = st.one_of(
    st.builds(
        events.DeliveredTo, id=text, recipient=text, remote=text, reply=text, seconds=st.floats(0, 1e6)
    ),
    st.builds(
        events.Accepted,
        id=text,
        session=st.integers(0, 10**9),
        client=text,
        sender=st.none() | text,
        recipients=st.lists(text, max_size=4).map(tuple),
        size=st.integers(0, 10**12),
    ),
    st.builds(events.Problem, component=text, text=text, trace=text, id=text),
)


@given(happenings)
def test_a_json_line_is_printable_ascii_and_gives_back_every_value(event):
    line = json_lines()(NOW, event)
    assert re.fullmatch(rb"[\x20-\x7e]+\n", line)
    fields = json.loads(line)
    assert fields["time"] == "2026-11-22T16:09:26.123456+00:00"
    assert fields["level"] == event.level
    for name in event.__struct_fields__:
        value = getattr(event, name)
        expected = list(value) if isinstance(value, tuple) else value
        assert fields.get(name, expected) == expected


@given(happenings)
def test_a_text_line_is_printable_ascii_and_cannot_forge_another_field(event):
    line = text_lines()(NOW, event)
    assert re.fullmatch(rb"[\x20-\x7e]+\n", line)
    unquoted = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", line.decode().rstrip("\n"))
    stamp, level, _name, *fields = unquoted.split(" ")
    assert datetime.fromisoformat(stamp).tzinfo is not None
    assert level == event.level
    assert [field.split("=")[0] for field in fields] == [
        name for name in event.__struct_fields__ if name in re.findall(r" ([a-z_]+)=", " " + " ".join(fields))
    ]
    assert all(field.split("=")[0] in event.__struct_fields__ for field in fields)


def test_text_lines_read_like_this():
    event = events.DeferredFor(
        id="01A",
        recipient="a@x.test",
        reply='451 4.3.0 "no"\x1b[2J',
        status="4.3.0",
        attempts=1,
        next_attempt=NOW,
    )
    assert text_lines()(NOW, event).decode() == (
        "2026-11-22T16:09:26.123456+00:00 warning deferred id=01A recipient=a@x.test "
        'reply="451 4.3.0 \\"no\\"\\u001b[2J" status=4.3.0 attempts=1 '
        "next_attempt=2026-11-22T16:09:26.123456+00:00\n"
    )
    null = events.Accepted(id="01B", session=0, client="", sender=None, recipients=("a@x", "b@x"), size=7)
    assert (
        text_lines()(NOW, null)
        .decode()
        .endswith(' info accepted id=01B session=0 client="" sender=<> recipients=a@x,b@x size=7\n')
    )


VALUES = {
    str: st.sampled_from(["", "a@x.test", "250 2.0.0 stored", "settled", "a,b", "\\", "\x7f", "é\u202e"])
    | text,
    int: st.integers(0, 3) | st.integers(0, 10**12),
    float: st.sampled_from([0.5, 10.0, 1e-7]) | st.floats(1e-3, 1e9),
}
VALUES |= {str | None: st.none() | VALUES[str], tuple[str, ...]: st.lists(VALUES[str], max_size=4).map(tuple)}


def kinds(base=events.Event):
    for kind in base.__subclasses__():
        yield from kinds(kind) if kind.__name__.startswith("_") else [kind]


def filled(kind):
    fields = msgspec.structs.fields(kind)
    optional = {f.name: st.just(f.default) | VALUES[f.type] for f in fields if not f.required}
    return st.builds(kind, **{f.name: VALUES[f.type] for f in fields if f.required}, **optional)


def text_line(event):
    """Written slowly, field by field."""
    words = [str(msgspec.to_builtins(event)["event"])]
    for field in msgspec.structs.fields(type(event)):
        value = getattr(event, field.name)
        if not field.required and value == field.default:
            continue
        if field.name == "next_attempt":
            value = (
                datetime.fromtimestamp(int(value), UTC).isoformat()[:19]
                + f".{int(value % 1 * 10**6):06}+00:00"
            )
        elif isinstance(value, float):
            value = f"{value:.6f}".rstrip("0").rstrip(".")
        values = value if isinstance(value, tuple) else [value]
        words.append(f"{field.name}=" + ",".join(map(text_value, values)))
    return f"2026-11-22T16:09:26.123456+00:00 {event.level} {' '.join(words)}\n"


def text_value(value):
    if value is None:
        return "<>"
    if value != "" and all("!" <= char <= "~" and char not in '",\\' for char in str(value)):
        return str(value)
    return json.dumps(value).replace("\x7f", "\\u007f")


@given(st.lists(st.sampled_from(list(kinds())).flatmap(filled), max_size=8))
def test_text_lines_of_every_event_say_every_field_that_is_not_at_its_default(happened):
    line = text_lines()  # one after the other: nothing of a line gets into a later one
    for event in happened:
        assert line(NOW, event).decode() == text_line(event)


def settings(**keys):
    return schema.Log(**({"target": "log/mail.log", "format": "json"} | keys))


def delivered(number):
    return events.DeliveredTo(id=f"ID{number}", recipient="alice@example.test", reply="250 2.0.0 stored")


def ids_of(*paths):
    found = []
    for path in paths:
        data = path.read_bytes()
        assert data.endswith(b"\n") or not data
        found += [json.loads(line).get("id", "") for line in data.splitlines()]
    return found


def rotated(directory):
    """Oldest first."""
    files = sorted(directory.glob("mail.log.*"), key=lambda path: int(path.suffix[1:]), reverse=True)
    return [*files, directory / "mail.log"]


def test_rotation_by_size_keeps_every_line_whole_and_in_order(tmp_path):
    log = Log(settings(max_size=20_000, keep=50), str(tmp_path))
    for number in range(5_000):
        log.write(delivered(number))
    log.close()
    files = rotated(tmp_path / "log")
    assert ids_of(*files) == [f"ID{number}" for number in range(5_000)]
    assert 30 < len(files) <= 51
    assert all(path.stat().st_size <= 20_000 for path in files)


def test_only_keep_rotated_files_stay(tmp_path):
    log = Log(settings(max_size=1_000, keep=2), str(tmp_path))
    for number in range(200):
        log.write(delivered(number))
    log.close()
    assert [path.name for path in rotated(tmp_path / "log")] == ["mail.log.2", "mail.log.1", "mail.log"]
    assert ids_of(tmp_path / "log" / "mail.log")[-1] == "ID199"


def test_logrotate_moves_the_file_and_no_line_is_lost(tmp_path):
    log = Log(settings(), str(tmp_path))
    for number in range(3_000):
        if number % 1_000 == 500:
            os.rename(tmp_path / "log" / "mail.log", tmp_path / "log" / f"old.{number}")
            log.reopen()
        log.write(delivered(number))
    log.close()
    old = [tmp_path / "log" / f"old.{number}" for number in (500, 1500, 2500)]
    assert ids_of(*[path for path in old if path.exists()], tmp_path / "log" / "mail.log") == [
        f"ID{number}" for number in range(3_000)
    ]


def test_reopening_with_new_settings_changes_format_and_level_or_nothing(tmp_path):
    log = Log(settings(), str(tmp_path))
    log.write(delivered(1))
    _until(lambda: (tmp_path / "log" / "mail.log").stat().st_size)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        log.reopen(settings(target="file/below-a-file"))
    log.reopen(settings(target="other.log", format="text", level="error"))
    log.write(delivered(2))
    log.write(events.Problem("queue", "disk says no"))
    log.close()
    assert ids_of(tmp_path / "log" / "mail.log") == ["ID1"]
    assert (tmp_path / "other.log").read_text().split(" ", 1)[1] == (
        'error problem component=queue text="disk says no"\n'
    )


def test_a_line_left_open_by_a_crash_is_ended_first(tmp_path):
    (tmp_path / "mail.log").write_text('{"id":"torn')
    log = Log(settings(target="mail.log"), str(tmp_path))
    log.write(delivered(1))
    log.close()
    torn, line = (tmp_path / "mail.log").read_text().splitlines()
    assert torn == '{"id":"torn'
    assert json.loads(line)["id"] == "ID1"


def test_a_full_disk_delays_lines_but_loses_and_splits_none(tmp_path, monkeypatch):
    """RLIMIT_FSIZE makes the kernel stop in the middle of a line (EFBIG), as a full disk does (ENOSPC)."""
    monkeypatch.setattr(log_module, "RETRY", 0.01)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = Log(settings(max_size=10 << 20), str(tmp_path))
    path = tmp_path / "log" / "mail.log"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
        for number in range(300):
            log.write(delivered(number))
        _until(lambda: path.stat().st_size == 5_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _until(lambda: path.read_bytes().count(b"\n") >= 300)
    log.close()
    found = ids_of(path)
    assert [name for name in found if name.startswith("ID")] == [f"ID{number}" for number in range(300)]
    assert "cannot write the log" in path.read_text()


def test_a_stuck_reader_never_blocks_the_caller_and_the_loss_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "BUFFER", 1_000)
    monkeypatch.setattr(log_module, "CLOSING", 20.0)
    reading, writing = os.pipe()
    monkeypatch.setattr(log_module, "STDERR", writing)
    log = Log(settings(target="stderr"), str(tmp_path))
    for number in range(20_000):  # more than pipe, batch and buffer hold
        log.write(delivered(number))
    lines = []
    with open(reading, "rb") as pipe:
        reader = threading.Thread(target=lambda: lines.extend(pipe))
        reader.start()
        log.close()
        os.close(writing)
        reader.join()
    assert all(line.endswith(b"\n") for line in lines)
    parsed = [json.loads(line) for line in lines]
    kept = [line["id"] for line in parsed if line["event"] == "delivered"]
    losses = [line["text"] for line in parsed if line["event"] == "problem"]
    assert kept == sorted(kept, key=lambda name: int(name[2:]))
    assert all(loss.endswith(" events lost: the log was stuck") for loss in losses)
    assert sum(int(loss.split()[0]) for loss in losses) == 20_000 - len(kept) > 0


def test_several_threads_lose_nothing(tmp_path):
    log = Log(settings(), str(tmp_path))

    def work(start):
        for number in range(start, start + 2_000):
            log.write(delivered(number))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 2_000, 4_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(ids_of(tmp_path / "log" / "mail.log")) == sorted(f"ID{number}" for number in range(6_000))


def test_below_the_level_nothing_is_written(tmp_path):
    log = Log(settings(level="warning"), str(tmp_path))
    log.write(delivered(1))
    log.write(events.Dropped(id="ID2", recipient="a@x.test", reason="null sender"))
    log.close()
    assert ids_of(tmp_path / "log" / "mail.log") == ["ID2"]


def test_an_event_that_cannot_be_encoded_does_not_silence_the_others(tmp_path):
    log = Log(settings(format="text"), str(tmp_path))
    log.write(events.DeferredFor("ID1", "a@x", "451", "4.0.0", 1, next_attempt=float("inf")))
    log.write(delivered(2))
    log.close()
    first, second = (tmp_path / "log" / "mail.log").read_text().splitlines()
    assert "error problem component=log" in first
    assert "id=ID2" in second


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the log did not get there within 10 s"
        time.sleep(0.005)  # waits for another thread of the same process, whose progress only the file shows
