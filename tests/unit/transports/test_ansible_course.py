"""What tells a course's playbook from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tango_cloud.core.errors import InputError
from tango_cloud.transports.ansible import course
from tango_cloud.transports.ansible.course import digest


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    folder = tmp_path / "course"
    (folder / "roles" / "x").mkdir(parents=True)
    (folder / "roles" / "x" / "main.yml").write_text("x")
    path = folder / "course.yml"
    path.write_text("[]")
    return path


def test_all_that_the_playbook_can_include_counts(playbook: Path) -> None:
    digests = {digest(None), digest(playbook)}
    role = playbook.parent / "roles" / "x" / "main.yml"
    role.write_text("y")
    digests.add(digest(playbook))
    role.chmod(0o700)
    digests.add(digest(playbook))
    role.rename(role.with_name("other.yml"))
    digests.add(digest(playbook))
    other = playbook.with_name("other.yml")
    other.write_text("[]")
    digests.add(digest(playbook))
    digests.add(digest(other))
    assert len(digests) == 7
    assert all(len(one) == 64 for one in digests)


def test_what_is_hidden_and_where_it_stands_does_not_count(playbook: Path, tmp_path: Path) -> None:
    before = digest(playbook)
    (playbook.parent / ".git").mkdir()
    (playbook.parent / ".git" / "index").write_text("x")
    (playbook.parent / ".swp").write_text("x")
    playbook.chmod(0o604)
    moved = playbook.parent.rename(tmp_path / "moved")
    assert digest(moved / "course.yml") == before


def test_what_cannot_be_read_is_named(playbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (playbook.parent / "gone").symlink_to("nowhere")
    with pytest.raises(InputError, match="gone: No such file"):
        digest(playbook)
    with pytest.raises(InputError, match=r"missing\.yml: No such file"):
        digest(playbook.with_name("missing.yml"))
    with pytest.raises(InputError, match="Is a directory"):
        course.check(playbook.parent)
    monkeypatch.setattr(course, "_FILES", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        digest(playbook)
