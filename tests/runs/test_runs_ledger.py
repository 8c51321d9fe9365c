"""Evaluations are never lost, never doubled, never wrong: torn lines, kills, full disks, crowds."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensprobe.errors import RunError
from sensprobe.runs import Evaluation, EvaluationKey, Manifest, Run, open_run
from sensprobe.runs.record import seal, unseal

MANIFEST = Manifest("m", "a", "d", "b", semantics=1)


def key(plan: str = "p", start: int = 0, stop: int = 4) -> EvaluationKey:
    return EvaluationKey("a", "c", "search", start, stop, plan, "cal", 1)


def evaluation(plan: str = "p", start: int = 0, stop: int = 4, **meta: Any) -> Evaluation:
    losses = np.arange(start, stop, dtype=np.float32) / 3
    return Evaluation(key(plan, start, stop), {"loss": losses, "correct": losses > 1}, meta)


def assert_same(a: Evaluation | None, b: Evaluation) -> None:
    assert a is not None
    assert (a.key, a.created, dict(a.meta)) == (b.key, b.created, dict(b.meta))
    assert a.arrays.keys() == b.arrays.keys()
    for name, array in b.arrays.items():
        assert a.arrays[name].dtype == array.dtype
        assert np.array_equal(a.arrays[name], array, equal_nan=array.dtype.kind == "f")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path / "r", MANIFEST)


def segment(run: Run, suffix: str = ".jsonl") -> Path:
    return max((run.path / "evaluations").glob(f"*{suffix}"))


def test_what_is_appended_is_found_at_once_and_after_reopening(run: Run) -> None:
    given_one = evaluation(label="layers.*.A=int8", seconds=0.5, notes=["x"], peak=float("inf"))
    assert run.find(given_one.key) is None
    run.append(given_one)
    assert_same(run.find(given_one.key), given_one)
    assert_same(open_run(run.path).find(given_one.key), given_one)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "i1", "u1", "?", ">f4"])
def test_arrays_come_back_as_they_were(run: Run, dtype: str) -> None:
    values = np.array([0, 1, 1, 0]).astype(dtype)
    run.append(Evaluation(key(), {"v": values, "w": np.full(4, np.nan, np.float32)}))
    found = run.find(key())
    assert found is not None
    assert found.arrays["v"].dtype == values.dtype.newbyteorder("<")
    assert np.array_equal(found.arrays["v"], values)
    assert np.isnan(found.arrays["w"]).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"v": np.zeros(3, np.float32)}, r"'v' has shape \(3,\); samples \[0, 4\) need \(4,\)"),
        ({"v": np.zeros((4, 1), np.float32)}, "has shape"),
        ({"v": np.zeros(4, complex)}, "dtype complex128; the ledger keeps <f4"),
        ({"v": np.array([None] * 4)}, "dtype object"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        Evaluation(key(), arrays)


def test_keys_that_mean_nothing_are_refused() -> None:
    with pytest.raises(RunError, match=r"samples \[4, 4\) are none"):
        evaluation(start=4, stop=4)
    with pytest.raises(RunError, match="every fingerprint of a key is a string"):
        Evaluation(EvaluationKey("a", "c", "s", 0, 1, "p", None, 1), {})  # type: ignore[arg-type]


def test_each_field_of_the_key_counts(run: Run) -> None:
    run.append(evaluation())
    for name in ("model", "data", "split", "plan", "calibration"):
        other = EvaluationKey(**{**{f: getattr(key(), f) for f in key().__slots__}, name: "other"})
        assert run.find(other) is None
    assert run.find(key(stop=3)) is None


def test_the_order_of_writing_is_kept(run: Run) -> None:
    plans = ["c", "a", "b"]
    for plan in plans:
        run.append(evaluation(plan, label=plan))
    run.append(evaluation("a", label="again"))
    assert [e.meta["label"] for e in run.evaluations()] == plans
    assert [(e.key.plan, e.names) for e in open_run(run.path).entries()] == [
        (plan, ("loss", "correct")) for plan in plans
    ]
    assert run.count == 3


@given(
    st.dictionaries(
        st.text(),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    )
)
def test_a_sealed_line_is_one_line_and_opens(document: dict[str, Any]) -> None:
    line = seal({"kind": "x", **document})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert unseal(line[:-1]) == {"kind": "x", **document}


@given(st.data())
@settings(max_examples=300)
def test_a_changed_byte_breaks_the_seal(data: st.DataObject) -> None:
    line = seal({"kind": "evaluation", "key": ["a", 3], "end": 12345})[:-1]
    place = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[place]))
    assert unseal(line[:place] + bytes((byte,)) + line[place + 1 :]) is None
    assert unseal(line[:place]) is None


def test_a_line_torn_at_any_byte_is_dropped_with_one_notice(run: Run) -> None:
    for plan in ("one", "two"):
        run.append(evaluation(plan))
    start = segment(run).stat().st_size
    run.append(evaluation("three"))
    run.close()
    whole = segment(run).read_bytes()
    end = whole.index(b"\n", start) + 1  # of the last evaluation, before the closing line
    for size in range(start, end):
        segment(run).write_bytes(whole[:size])
        opened = open_run(run.path)
        assert opened.count == 2, size
        assert opened.find(key("three")) is None
        assert len(opened.notices) == (size > start)
        assert all(f"last line of {size - start} byte(s)" in note for note in opened.notices)
        opened.refresh()
        assert len(opened.notices) == (size > start)
        assert segment(run).read_bytes() == whole[:size]
        assert opened.state == "stopped"


def test_work_goes_on_after_a_torn_line(run: Run) -> None:
    run.append(evaluation("one"))
    run.append(evaluation("two"))
    run.close()
    path = segment(run)
    path.write_bytes(path.read_bytes()[:-130])
    again = open_run(run.path)
    assert again.find(key("two")) is None
    again.append(evaluation("two"))
    again.close()
    assert {e.key.plan for e in open_run(run.path).evaluations()} == {"one", "two"}


def test_a_damaged_line_in_the_middle_is_skipped_alone(run: Run) -> None:
    for plan in ("one", "two", "three"):
        run.append(evaluation(plan))
    run.close()
    body = segment(run).read_bytes()
    place = body.index(b'"two"')
    segment(run).write_bytes(body[:place] + b"#" + body[place + 1 :])
    opened = open_run(run.path)
    assert [e.key.plan for e in opened.entries()] == ["one", "three"]
    assert len(opened.notices) == 1
    assert "skipped 1 damaged line(s), the first at byte" in opened.notices[0]
    assert "made again when needed" in opened.notices[0]


def test_lines_whose_arrays_are_missing_are_skipped(run: Run) -> None:
    run.append(evaluation("one"))
    size = segment(run, ".bin").stat().st_size
    run.append(evaluation("two"))
    run.close()
    for left in range(2 * size - 1, size - 1, -3):
        os.truncate(segment(run, ".bin"), left)
        opened = open_run(run.path)
        assert [e.key.plan for e in opened.evaluations()] == ["one"]
    segment(run, ".bin").unlink()
    opened = open_run(run.path)
    assert opened.count == 0
    assert "skipped 2 damaged line(s)" in opened.notices[0]


def test_damaged_arrays_are_dropped_and_a_second_copy_is_used(run: Run) -> None:
    run.append(evaluation(label="first"))
    run.close()
    body = bytearray(segment(run, ".bin").read_bytes())
    body[5] ^= 1
    segment(run, ".bin").write_bytes(body)
    opened = open_run(run.path)
    assert opened.count == 1
    assert opened.find(key()) is None
    assert opened.count == 0
    assert "arrays of the evaluation at byte" in opened.notices[0]
    opened.append(evaluation(label="second"))
    again = open_run(run.path).find(key())
    assert again is not None
    assert again.meta == {"label": "second"}


def test_others_are_seen_on_refresh(run: Run) -> None:
    other = open_run(run.path)
    run.append(evaluation("one"))
    assert other.find(key("one")) is None
    assert other.refresh() == 1
    assert_same(other.find(key("one")), next(iter(run.evaluations())))
    other.append(evaluation("two"))
    run.append(evaluation("three"))
    assert run.refresh() == 1
    assert other.refresh() == 1
    assert run.count == other.count == 3


def test_an_unfinished_line_of_a_living_writer_is_waited_for(run: Run) -> None:
    run.append(evaluation("one"))
    writer = run._writer
    assert writer is not None
    line = seal({"kind": "close", "outcome": "finished", "created": ""})
    os.write(writer._lines, line[:10])
    other = open_run(run.path)
    assert other.notices == []
    os.write(writer._lines, line[10:])
    other.refresh()
    assert other.notices == []
    assert other._ledger.last_outcome() == "finished"


WRITER = """
import sys
import numpy as np
from sensprobe.runs import Evaluation, EvaluationKey, open_run
folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
run = open_run(folder)
with run.working("profile"):
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(count):
        key = EvaluationKey("a", "c", "search", 0, 50, f"{name}-{i}", "cal", 1)
        run.append(Evaluation(key, {"loss": np.full(50, i, np.float32)}, {"i": i}))
        print(i, flush=True)
"""


def start_writer(run: Run, name: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(run.path), name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def go(writer: subprocess.Popen[bytes]) -> None:
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == b"ready\n"
    writer.stdin.write(b"\n")
    writer.stdin.flush()


@pytest.mark.parametrize("delay_ms", [3, 11, 23])
def test_a_killed_writer_loses_nothing_it_reported(run: Run, delay_ms: int) -> None:
    with start_writer(run, "w", 1_000_000) as writer:
        go(writer)
        time.sleep(delay_ms / 1000)
        writer.send_signal(signal.SIGKILL)
        assert writer.stdout is not None
        told = [
            int(line)
            for line in writer.stdout.read().splitlines(keepends=True)
            if line[-1:] == b"\n"
        ]
    again = open_run(run.path)
    found = [int(e.meta["i"]) for e in again.evaluations()]
    assert found == list(range(len(found)))
    assert len(told) <= len(found) <= len(told) + 1
    assert again.state == "stopped"
    assert not any("arrays" in notice or "damaged" in notice for notice in again.notices)
    again.append(evaluation("after"))
    assert open_run(run.path).find(key("after")) is not None


def test_two_processes_write_at_once(run: Run) -> None:
    with start_writer(run, "x", 200) as x, start_writer(run, "y", 200) as y:
        for writer in (x, y):
            go(writer)
        x.communicate()
        y.communicate()
    assert (x.returncode, y.returncode) == (0, 0)
    assert run.refresh() == 400
    assert run.state == "finished"
    found = list(run.evaluations())
    assert {e.key.plan for e in found} == {f"{w}-{i}" for w in "xy" for i in range(200)}
    assert all((e.arrays["loss"] == e.meta["i"]).all() for e in found)
    assert run.notices == []


def test_threads_share_one_run(run: Run) -> None:
    def work(name: str) -> None:
        for i in range(50):
            run.append(evaluation(f"{name}{i}"))
            assert run.find(key(f"{name}{i}")) is not None
            list(run.entries())

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.count == open_run(run.path).count == 200
    assert len(list((run.path / "evaluations").glob("*.jsonl"))) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_its_own_segment(run: Run) -> None:
    run.append(evaluation("parent"))
    child = os.fork()
    if child == 0:
        run.append(evaluation("child"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    run.append(evaluation("parent again"))
    run.refresh()
    assert len(list((run.path / "evaluations").glob("*.jsonl"))) == 2
    assert {e.key.plan for e in run.evaluations()} == {"parent", "child", "parent again"}


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """An `os.write` that takes `room` bytes and then says the disk is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.write = os.write

    def __call__(self, descriptor: int, content: Any) -> int:
        part = bytes(content)[: self.room]
        if not part:
            full()
        self.room -= len(part)
        return self.write(descriptor, part)


def test_a_disk_that_fills_at_any_byte_leaves_no_half_evaluation(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append(evaluation("kept"))
    lines, content = segment(run), segment(run, ".bin")
    before = lines.stat().st_size, content.stat().st_size
    run.append(evaluation("size"))
    need = lines.stat().st_size - before[0] + content.stat().st_size - before[1]
    for room in range(0, need, 5):
        plan = f"lost{room % 10}"
        run.append(evaluation(plan + "x"))  # opens a new segment after a failure
        lines, content = segment(run), segment(run, ".bin")
        before = lines.read_bytes(), content.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", Disk(room))
            with pytest.raises(RunError, match="the disk is full; free some space and run the sa"):
                run.append(evaluation(plan))
        assert (lines.read_bytes(), content.read_bytes()) == before
        assert run.find(key(plan)) is None
    opened = open_run(run.path)
    assert opened.notices == []
    assert opened.find(key("kept")) is not None


def test_what_a_failing_disk_will_not_even_cut_off_harms_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append(evaluation("one"))
    size = segment(run, ".bin").stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Disk(size + 10))  # the arrays and the beginning of the line
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(RunError, match="the disk is full"):
            run.append(evaluation("two"))
    run.append(evaluation("three"))
    run.close()
    opened = open_run(run.path)
    assert {e.key.plan for e in opened.evaluations()} == {"one", "three"}
    assert ["last line of 10 byte(s)" in note for note in opened.notices] == [True]


def test_a_disk_full_from_the_start_leaves_no_segment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Disk(20))
        with pytest.raises(RunError, match="the disk is full"), run.working("profile"):
            pytest.fail("the work must not begin")
    assert list((run.path / "evaluations").iterdir()) == []
    with run.working("profile"):
        run.append(evaluation())
    assert open_run(run.path).count == 1


def test_an_interrupt_inside_a_write_harms_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append(evaluation("one"))
    write = os.write

    def interrupted(descriptor: int, content: Any) -> int:
        write(descriptor, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.append(evaluation("two"))
    run.append(evaluation("three"))
    run.close()
    opened = open_run(run.path)
    assert {"one", "three"} <= {e.key.plan for e in opened.evaluations()}
    assert opened.notices == []


HOLDER = """
import sys
from sensprobe.runs import EvaluationKey, open_run
run = open_run(sys.argv[1])
with run.leased(EvaluationKey("a", "c", "search", 0, 4, "p", "cal", 1), lambda: None):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lease_is_waited_for_and_goes_with_a_killed_process(run: Run) -> None:
    """Whoever waits takes in what was appended meanwhile, and no file stays."""
    command, told = [sys.executable, "-c", HOLDER, str(run.path)], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with run.leased(key("another plan"), pytest.fail):
            pass

        def waiting() -> None:
            told.append("waits")
            open_run(run.path).append(evaluation())
            holder.kill()

        with run.leased(key(start=2), waiting):
            assert run.holds(key())
    assert told == ["waits"]
    assert not list((run.path / "leases").iterdir())
    run.append(evaluation("own"))
    run.close()
    assert not (run.path / "leases").exists()


def test_threads_hold_a_lease_one_after_another(run: Run) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(40):
            with run.leased(key(), lambda: None):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def sealed(**change: Any) -> bytes:
    """A line as `append` writes it, with other things in it and a checksum that is right."""
    arrays = {"loss": [0, "<f4", 4, 0]}
    line = {"kind": "evaluation", "key": ["a", "c", "search", "p", "cal", 1, 0, 4], "end": 16}
    return seal({**line, "arrays": arrays, "meta": {}, "created": "", **change})


NESTED = b'{"kind":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "line",
    [
        NESTED[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(NESTED),
        sealed(key=["a", 1]),
        sealed(key=["a", "c", "search", "p", "cal", 1, 4, 0]),
        sealed(key=[["a"], "c", "search", "p", "cal", 1, 0, 4]),
        sealed(end="16"),
        sealed(end=10**400),
        sealed(arrays=[1]),
        sealed(arrays={"loss": [-8, "<f4", 4, 0]}),
        sealed(arrays={"loss": [0, "O", 4, 0]}),
        sealed(arrays={"loss": [0, "<f4", 3, 0]}),
        sealed(meta=[]),
        sealed(created=None),
        sealed(kind=None),
    ],
)
def test_lines_that_others_sealed_break_nothing(run: Run, line: bytes) -> None:
    run.append(evaluation("kept"))
    run.close()
    (run.path / "evaluations" / "0.bin").write_bytes(bytes(64))
    (run.path / "evaluations" / "0.jsonl").write_bytes(line)
    opened = open_run(run.path)
    assert [e.key.plan for e in opened.evaluations()] == ["kept"]
    assert [e.key.plan for e in opened.entries()] == ["kept"]
    assert opened.state in ("stopped", "finished")


def test_what_is_no_file_is_left_out_with_a_notice(run: Run) -> None:
    run.append(evaluation("kept"))
    run.close()
    folder, other = run.path / "evaluations", run.path / "other.jsonl"
    other.write_bytes(segment(run).read_bytes())
    (folder / "a.jsonl").symlink_to(other)
    os.mkfifo(folder / "b.jsonl")
    (folder / "c.jsonl").mkdir()
    opened = open_run(run.path)
    opened.refresh()
    assert [e.key.plan for e in opened.evaluations()] == ["kept"]
    assert sorted(opened.notices) == [
        f"evaluations/{name}.jsonl is no file; it is left out" for name in "abc"
    ]


def test_missing_names_the_gaps(run: Run) -> None:
    for start, stop in ((2, 4), (3, 6), (8, 9)):
        run.append(evaluation(start=start, stop=stop))
    assert run.missing(key(stop=10)) == [(0, 2), (6, 8), (9, 10)]
    assert run.missing(key(start=2, stop=6)) == []
    assert run.missing(key(start=5, stop=7)) == [(6, 7)]
    assert run.missing(key("other", 1, 3)) == [(1, 3)]


@given(
    spans=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 6)), max_size=8),
    start=st.integers(0, 10),
    size=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_gather_puts_any_cover_together(
    tmp_path_factory: pytest.TempPathFactory,
    spans: list[tuple[int, int]],
    start: int,
    size: int,
) -> None:
    run = open_run(tmp_path_factory.mktemp("gather") / "r", MANIFEST)
    for first, count in spans:
        run.append(evaluation(start=first, stop=first + count))
    asked = key(start=start, stop=start + size)
    covered = {i for first, count in spans for i in range(first, first + count)}
    gaps = {i for a, b in run.missing(asked) for i in range(a, b)}
    assert gaps == set(range(start, start + size)) - covered
    got = run.gather(asked)
    assert (got is None) == bool(gaps)
    if got is not None:
        assert got.key == asked
        assert np.array_equal(
            got.arrays["loss"], evaluation(start=start, stop=start + size).arrays["loss"]
        )
    run.close()


def test_gather_survives_a_damaged_piece(run: Run) -> None:
    run.append(evaluation(stop=4))
    run.append(evaluation(stop=2))
    run.append(evaluation(start=2, stop=4))
    run.close()
    body = bytearray(segment(run, ".bin").read_bytes())
    body[0] ^= 1
    segment(run, ".bin").write_bytes(body)
    opened = open_run(run.path)
    got = opened.gather(key())
    assert got is not None
    assert np.array_equal(got.arrays["loss"], evaluation().arrays["loss"])


def test_gather_reaches_into_runs_that_are_reused(tmp_path: Path) -> None:
    first = open_run(tmp_path / "first", MANIFEST)
    first.append(evaluation(stop=3))
    first.close()
    second = open_run(tmp_path / "second", MANIFEST, reuse=[first.path])
    assert second.missing(key()) == [(3, 4)]
    second.append(evaluation(start=3))
    got = second.gather(key())
    assert got is not None
    assert np.array_equal(got.arrays["loss"], evaluation().arrays["loss"])
    assert open_run(tmp_path / "second").gather(key()) is not None


def test_opening_a_run_reads_the_index_and_no_samples(run: Run) -> None:
    """Or it would notice that the samples are gone."""
    for i in range(50):
        run.append(evaluation(f"{i:064d}", label="layers.*.A=int8/head/asym"))
    run.close()
    for file in (run.path / "evaluations").glob("*.bin"):
        file.write_bytes(bytes(file.stat().st_size))
    opened = open_run(run.path)
    assert opened.count == 50
    assert opened.find(key(f"{0:064d}")) is None
