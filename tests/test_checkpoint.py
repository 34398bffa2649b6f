"""Checkpoints come back bit for bit, are refused in one sentence, and are never half written."""
from minidiff import __version__, checkpoint

import errno
import io
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from conftest import ROOT, Bomb
from hypothesis import given, settings
from hypothesis import strategies as st

ARRAYS = {"theta": np.float32([1.5, -0.0, np.nan, 1e-45]), "scale": np.array([[np.pi], [1 / 3]]),
          "n": np.array(7)}
META = {"update": 12, "seconds": 0.1, "task": "ü", "config": {"precondition": True, "out": None},
        "rng": np.random.default_rng(5).bit_generator.state}


def refused(path, *words, needs=()):
    """Loading fails with one sentence that names the file and says all the words."""
    with pytest.raises(ValueError) as error:
        checkpoint.load(path, needs)
    message = str(error.value)
    assert not [word for word in (str(path), *words) if word not in message], message
    assert "\n" not in message.replace(str(path), "")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "runs" / "a" / "checkpoint.npz"
    checkpoint.save(path, ARRAYS, META)
    return path


def test_arrays_come_back_bit_for_bit_and_everything_else_as_it_was(saved):
    arrays, meta = checkpoint.load(saved, needs=ARRAYS)
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()
    assert {name: meta[name] for name in META} == META
    assert meta["versions"] == {"minidiff": __version__, "numpy": np.__version__,
                                "python": platform.python_version()}


def test_a_generator_goes_on_from_its_saved_state(saved):
    rng = np.random.default_rng(0)
    rng.bit_generator.state = checkpoint.load(saved)[1]["rng"]
    assert rng.standard_normal() == np.random.default_rng(5).standard_normal()


def test_saving_again_replaces_the_file_and_leaves_nothing_else(saved):
    checkpoint.save(saved, {"theta": np.zeros(2)}, META | {"update": 13})
    arrays, meta = checkpoint.load(saved)
    assert list(arrays) == ["theta"] and meta["update"] == 13
    assert os.listdir(saved.parent) == ["checkpoint.npz"]


# ---- what is refused -----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(scratch):
    checkpoint.save(scratch / "whole.npz", ARRAYS, META)
    return (scratch / "whole.npz").read_bytes()


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_checkpoint_cut_short_at_any_byte_is_refused(whole, scratch, cut):
    (scratch / "cut.npz").write_bytes(whole[:int(cut * len(whole))])
    refused(scratch / "cut.npz", "not a minidiff checkpoint")


# a file's first and last few hundred bytes are the headers of the zip and of NumPy
places = st.integers(-400, 400) | st.integers(0, 3000)


@pytest.mark.slow
@settings(max_examples=250)
@given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4))
def test_a_checkpoint_with_changed_bytes_is_refused_or_means_the_same(whole, scratch, changes):
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    path = scratch / "changed.npz"
    path.write_bytes(data)
    try:
        arrays, meta = checkpoint.load(path, needs=ARRAYS)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert meta["update"] == META["update"]
        for name in ARRAYS:
            assert arrays[name].tobytes() == ARRAYS[name].tobytes()


@pytest.mark.parametrize("meta", [
    None, "words", "[]", "3", "{}", '{"format": "minidiff checkpoint"}',
    '{"format": "other", "format_version": 1, "versions": {"minidiff": "1"}}',
    '{"format": "minidiff checkpoint", "format_version": 1}',
    "[" * 100_000], ids=lambda meta: str(meta)[:40])
def test_an_npz_that_is_no_checkpoint_is_refused(meta, tmp_path):
    arrays = {"x": np.zeros(3)}
    if meta is not None:
        arrays["meta"] = meta
    np.savez(tmp_path / "foreign.npz", **arrays)
    refused(tmp_path / "foreign.npz", "not a minidiff checkpoint")


def test_a_single_array_random_bytes_and_an_empty_file_are_refused(tmp_path):
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "random").write_bytes(bytes(range(256)))
    (tmp_path / "empty").touch()
    for name in ("single.npy", "random", "empty"):
        refused(tmp_path / name, "not a minidiff checkpoint")


def test_a_missing_file_and_a_folder_are_not_found(tmp_path):
    for path in (tmp_path / "nowhere.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{path.name}: no such checkpoint"):
            checkpoint.load(path)


@pytest.mark.parametrize("name", ["meta", "theta"])
def test_a_pickled_array_is_refused_and_never_executed(name, tmp_path):
    arrays = {"meta": json.dumps(META), "theta": np.zeros(3)}
    arrays[name] = np.array([Bomb(tmp_path / "executed")], object)
    np.savez(tmp_path / "hostile.npz", **arrays)
    refused(tmp_path / "hostile.npz", "not a minidiff checkpoint")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("change, age", [(-1, "an older"), (1, "a newer")])
def test_another_format_is_refused_with_both_versions(saved, monkeypatch, change, age):
    format = checkpoint.FORMAT_VERSION
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(checkpoint, "FORMAT_VERSION", format + change)
        elsewhere.setattr(checkpoint, "__version__", "9.8.7")
        checkpoint.save(saved, ARRAYS, META)
    refused(saved, f"{age} minidiff (9.8.7) in format {format + change}",
            f"this one ({__version__}) reads format {format}")


def test_missing_arrays_are_named(saved):
    refused(saved, "lacks ema, v", needs=("theta", "ema", "v"))


# ---- saving that is interrupted ------------------------------------------------------------------

@pytest.mark.parametrize("module, function", [("numpy", "savez"), ("os", "fsync"),
                                              ("os", "replace")])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()],
                         ids=["disk full", "ctrl-c"])
def test_a_save_that_fails_leaves_the_old_file_whole_and_no_other(
        saved, monkeypatch, module, function, error):
    def fails(file, *_, **__):
        if function == "savez":
            file.write(b"PK half of it")
        raise error

    before = saved.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(sys.modules[module], function, fails)
        with pytest.raises(type(error)):
            checkpoint.save(saved, {"theta": np.ones(5)}, META)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["checkpoint.npz"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from minidiff import checkpoint

def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

checkpoint.write_atomically(sys.argv[1], write)
"""


def test_a_kill_in_the_middle_of_a_save_leaves_the_old_file_whole(saved):
    before = saved.read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(saved)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert saved.read_bytes() == before
    assert checkpoint.load(saved)[1]["update"] == META["update"]


# ---- where a file is written to ------------------------------------------------------------------

def test_a_link_stays_a_link_and_its_file_is_written(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "deep" / "real.json")
    checkpoint.write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "deep" / "real.json").read_text() == "[\n 1\n]"
    assert os.listdir(tmp_path / "deep") == ["real.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()),
                              daemon=True)  # else a failure would wait for it for ever
    reader.start()
    checkpoint.write_json(tmp_path / "pipe", {"a": 1})
    reader.join(timeout=10)
    assert json.loads(read[0]) == {"a": 1} and (tmp_path / "pipe").is_fifo()


def test_threads_that_save_to_one_path_do_not_disturb_each_other(tmp_path):
    """One saves while the other is in the middle of it."""
    def write(file):
        file.write(b"first ")
        other = threading.Thread(target=checkpoint.write_json, args=(tmp_path / "p", "other"))
        other.start()
        other.join()
        assert (tmp_path / "p").read_text() == '"other"'
        file.write(b"and last")

    checkpoint.write_atomically(tmp_path / "p", write)
    assert (tmp_path / "p").read_text() == "first and last" and os.listdir(tmp_path) == ["p"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask whether a process lives")
def test_what_a_killed_save_left_behind_is_removed_by_the_next(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    left = tmp_path / f".p[1].npz.{gone.pid}.1.tmp"
    others = [tmp_path / f".p[1].npz.{os.getpid()}.1.tmp",  # of a process that is at work
              tmp_path / f".q.npz.{gone.pid}.1.tmp", tmp_path / ".p[1].npz.notes.tmp"]
    for path in (left, *others):
        path.write_text("half")
    checkpoint.save(tmp_path / "p[1].npz", {}, {})
    assert not left.exists() and all(path.exists() for path in others)


def test_two_processes_may_remove_what_a_killed_save_left_behind(tmp_path, monkeypatch):
    left = tmp_path / ".p.1.1.tmp"
    left.touch()
    monkeypatch.setattr(checkpoint, "alive", lambda process: left.unlink())  # the other is quicker
    checkpoint.write_json(tmp_path / "p", [])
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("name, error, said", [
    ("", ValueError, "is empty: is a variable not set"), (".", IsADirectoryError, "is a folder"),
    ("file/below.json", OSError, "cannot be written there"),
    ("loop/below.json", OSError, "cannot be written there")])
def test_a_place_that_cannot_be_written_is_refused_beforehand(name, error, said, tmp_path,
                                                              monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(error, match=said):
        checkpoint.check_writable(name)
    for good in ("new.json", "a/b/new.json", os.devnull):
        checkpoint.check_writable(good)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


@pytest.mark.parametrize("name", ["old.json", "a/b/new.json"])
def test_a_folder_that_cannot_be_written_to_is_refused_beforehand(name, tmp_path, monkeypatch):
    def read_only(dir):
        assert dir == tmp_path.resolve()
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "old.json").touch()
    monkeypatch.setattr(checkpoint.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError, match=r"json: cannot be written there \(Read-only file system"):
        checkpoint.check_writable(tmp_path / name)
    checkpoint.check_writable(os.devnull)  # nothing is made in a device's folder


# ---- what a file says of itself ------------------------------------------------------------------

def npz(path, **members):
    """A .npz whose members are raw bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape, descr="'<f8'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("content, said", [
    (header((10**9,)) + bytes(80), "it has fewer bytes than its shape needs"),
    (header((100,)) + bytes(80), "it has fewer bytes than its shape needs"),
    (header((2**32, 2**32)) + bytes(80), "it has fewer bytes than its shape needs"),
    (header((10**9,), "'|S0'"), "should be numbers"),
    (header((10**9,), "'<U0'"), "should be numbers"),
    (header((2,), "'<M8[s]'") + bytes(16), "should be numbers"),
    (header((2,), "[('a', '<f8')]") + bytes(16), "should be numbers"),
    (header((-1,)), "array 'a'"), (header("('x',)"), "array 'a'"), (b"", "array 'a'"),
    (b"\x93NUMPY\x09\x00" + bytes(80), "array 'a'")])
def test_an_array_that_lies_about_itself_is_refused(content, said, tmp_path):
    path = npz(tmp_path / "a.npz", a=content)
    with pytest.raises(ValueError, match=said):
        checkpoint.read_npz(path, ("a",))
    assert checkpoint.read_npz(path, ()) == ({}, ["a"])  # what nobody asks for is not read


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_arrays_in_either_version_of_numpys_format_are_read(version, tmp_path):
    """NumPy itself writes the second for very long headers only, other programs at will."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(3), version)
    arrays, _ = checkpoint.read_npz(npz(tmp_path / "a.npz", a=file.getvalue()), ("a",))
    assert arrays["a"].tolist() == [0, 1, 2]


def test_a_size_that_nothing_can_be_unpacked_to_is_refused(tmp_path):
    """The archive and the array in it agree on 3.2 GB, which stand in a few bytes."""
    numbers = 400_000_000
    content = header((numbers,)) + bytes(80)
    path = npz(tmp_path / "a.npz", a=content)
    honest = len(content).to_bytes(4, "little")
    claimed = (len(header((numbers,))) + 8 * numbers).to_bytes(4, "little")
    assert path.read_bytes().count(honest) == 2  # before the member, and in the list of members
    path.write_bytes(path.read_bytes().replace(honest, claimed))
    with pytest.raises(ValueError, match="array 'a': it is compressed more than zip can"):
        checkpoint.read_npz(path, ("a",))


def test_only_what_is_asked_for_is_read(saved):
    arrays, meta = checkpoint.load(saved, needs=("theta",))
    assert list(arrays) == ["theta"] and meta["update"] == META["update"]
