"""The table of hostile jobs says what the reports say."""

from __future__ import annotations

from pathlib import Path

from .. import hostile_table

REPORT = """\
<testsuites><testsuite timestamp="2026-11-27T20:00:00">
<testcase name="test_fills_the_disk[root-limits]"/>
<testcase name="test_fills_the_disk[user-systemd]"><skipped message="too small"/></testcase>
<testcase name="test_puts_links[root-limits-a]">{}</testcase>
<testcase name="test_puts_links[root-limits-b]"/>
</testsuite></testsuites>
"""


def write(tmp_path: Path, content: str = "") -> list[str]:
    (tmp_path / "report.xml").write_text(REPORT.format(content))
    return [str(tmp_path / "report.xml"), str(tmp_path / "page.md")]


def test_each_attack_has_a_row_and_each_setting_a_column(tmp_path: Path) -> None:
    words = write(tmp_path)
    assert hostile_table.main(words) == 0
    page = Path(words[1]).read_text()
    assert "2026-11-27" in page
    assert page.endswith(
        "| the job … | root: limits | user: systemd |\n| --- | --- | --- |\n"
        "| fills the disk | held | (1) |\n| puts links | held |  |\n\n(1) too small.  \n"
    )


def test_one_that_was_not_held_is_no_table(tmp_path: Path) -> None:
    words = write(tmp_path, "<failure/>")
    assert hostile_table.main(words) == 1
    assert not Path(words[1]).exists()
