"""What is read from files follows them, and outlives bad ones."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from longspan.server.errors import ConfigError
from longspan.server.reloaded import Reloaded


class Loading:
    """Reads a number, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        try:
            return int(self.path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError("not a number: secret") from error


def replace(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.replace(path)


def test_the_newest_good_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    load = Loading(path)
    number = Reloaded([path], load, every_s=0.0)
    assert [number.value() for _ in range(3)] == [1, 1, 1]
    assert load.times == 1
    replace(path, "2")
    assert [number.value() for _ in range(3)] == [2, 2, 2]
    for spoilt in ("x", None):
        if spoilt is None:
            path.unlink()
        else:
            replace(path, spoilt)
        assert [number.value() for _ in range(3)] == [2, 2, 2]
    # Each bad state is tried and told once.
    assert load.times == 4
    assert caplog.text.count("not reloaded") == 2
    replace(path, "3")
    assert number.value() == 3


def test_a_folder_of_links_that_is_swapped(tmp_path: Path) -> None:
    """As Kubernetes does it: of the same length, and both written at the same time."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "value").write_text(name)
    (tmp_path / "now").symlink_to("1")
    path = tmp_path / "now" / "value"
    number = Reloaded([path], Loading(path), every_s=0.0)
    assert number.value() == 1
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "now")
    assert number.value() == 2


def test_nobody_looks_too_often(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    number = Reloaded([path], Loading(path), every_s=3600.0)
    replace(path, "2")
    assert number.value() == 1


def test_a_bad_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Reloaded([tmp_path / "absent"], Loading(tmp_path / "absent"))


def test_many_threads_read_it_once(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    load = Loading(path)
    number = Reloaded([path], load, every_s=0.0)
    replace(path, "2")
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(number.value())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2] * 20
    assert load.times == 2
