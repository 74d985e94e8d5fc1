"""Files that are whole, or as they were."""

import os
import stat

import pytest

from keras_explain import files


class StopError(Exception):
    pass


def write(path, content="new", text=True):
    with files.written(path, text=text) as file:
        file.write(content)


def stop_in_the_middle(path):
    with files.written(path, text=True) as file:
        file.write("half")
        file.flush()
        raise StopError


@pytest.mark.parametrize("before", [None, "old"])
def test_after_an_error_all_is_as_it_was(before, tmp_path):
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(StopError):
        stop_in_the_middle(path)
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["a.txt"])
    assert before is None or path.read_text() == before


def test_others_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.written(path, text=True) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("text", "content"), [(True, "ä\r\n\n"), (False, b"\0\r\n\n")])
def test_nothing_is_translated(text, content, tmp_path):
    write(tmp_path / "a", content, text)
    assert (tmp_path / "a").read_bytes() == (content.encode() if text else content)


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    write(tmp_path / "a.txt")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "a.txt")]
    assert modes[0] == modes[1]


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o600)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", [True, False])
def test_links_are_followed(there, tmp_path):
    target, link = tmp_path / "far" / "b.txt", tmp_path / "a.txt"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_name_as_long_as_can_be(tmp_path):
    write(tmp_path / ("a" * 255))
    assert (tmp_path / ("a" * 255)).read_text() == "new"


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe)
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        write(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a file that can be written.*no.a\.txt"):
        write(tmp_path / "no" / "a.txt")


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"Expected a file that can be written.*a\.txt"):
        write(tmp_path / "file" / "a.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_without_permission(what, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    (tmp_path if what == "folder" else path).chmod(0o500)
    with pytest.raises(PermissionError, match=r"Expected a file that can be written.*a\.txt"):
        write(path)
    tmp_path.chmod(0o700)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_who_reads_the_file_before_reads_it_to_the_end(tmp_path):
    """It is moved into place: no moment has half of each."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    with open(path, encoding="utf-8") as reader:
        with files.written(path, text=True) as file:
            file.write("after")
        assert reader.read() == "before"
    assert path.read_text() == "after"
