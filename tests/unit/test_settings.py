"""Settings: where they come from, and that every fault is told in one go."""

from pathlib import Path

import pytest

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.settings import load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def _write(text: str) -> None:
    Path("tango-cloud.toml").write_text(text, encoding="utf-8")


def _faults(**overrides: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(overrides)
    return [str(fault) for fault in caught.value.faults]


def test_defaults_need_no_file() -> None:
    settings = load()
    assert (settings.prefix, settings.provider) == ("tango", ("local",))


def test_variable_beats_file_and_argument_beats_both(monkeypatch: pytest.MonkeyPatch) -> None:
    _write('prefix = "file"\n[job]\ntimeout_seconds = 1\noutput_kib = 7\nprocesses = 9')
    monkeypatch.setenv("TANGO_CLOUD_JOB__TIMEOUT_SECONDS", "2")
    monkeypatch.setenv("TANGO_CLOUD_JOB__OUTPUT_KIB", "8")
    settings = load({"job": {"output_kib": 10}})
    assert settings.prefix == "file"
    assert settings.job.processes == 9
    assert settings.job.timeout_seconds == 2
    assert settings.job.output_kib == 10


def test_the_file_in_the_configuration_folder_is_the_last_resort(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "tango-cloud"
    folder.mkdir(parents=True)
    (folder / "tango-cloud.toml").write_text('prefix = "home"')
    assert load().prefix == "home"
    _write('prefix = "here"')
    assert load().prefix == "here"


def test_every_fault_is_reported_with_its_key_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    _write('prefix = "a b"\nfoo = 1\n[wave]\nparallelism = 0\nblub = 3\n[nope]\na = 1')
    monkeypatch.setenv("TANGO_CLOUD_JOB__TIMEOUT_SECONDS", "abc")
    monkeypatch.setenv("TANGO_CLOUD_SURPRISE", "1")
    faults = "\n".join(_faults(local={"server": "telnet"}))
    for key in ("prefix", "foo", "wave.parallelism", "wave.blub", "nope", "job.timeout_seconds"):
        assert key in faults
    assert "TANGO_CLOUD_SURPRISE: unknown setting" in faults
    assert "(TANGO_CLOUD_JOB__TIMEOUT_SECONDS)" in faults
    assert "tango-cloud.toml" in faults
    assert "'auto', 'sshd' or 'asyncssh'" in faults
    assert len(faults.splitlines()) == 8


def test_several_providers_are_named_with_commas_or_as_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load({"provider": "aws, gcp"}).provider == ("aws", "gcp")
    _write('provider = ["aws", "local"]\n[prices]\n"aws/t3.small" = 0.0208')
    settings = load()
    assert settings.provider == ("aws", "local")
    assert settings.prices == {"aws/t3.small": 0.0208}
    monkeypatch.setenv("TANGO_CLOUD_PROVIDER", "gcp,local")
    assert load().provider == ("gcp", "local")
    assert _faults(provider="aws,,gcp") != []


def test_a_fault_in_a_list_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANGO_CLOUD_AWS__SSH_FROM", '["0.0.0.0/0"]')
    (fault,) = _faults()
    assert fault.startswith("aws.ssh_from.0 (TANGO_CLOUD_AWS__SSH_FROM): ")


@pytest.mark.parametrize("value", ["1e20", "0", "-1", "nan", "inf", "abc", ""])
def test_a_time_must_be_a_positive_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TANGO_CLOUD_JOB__TIMEOUT_SECONDS", value)
    assert any("job.timeout_seconds" in fault for fault in _faults())


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANGO_CLOUD_CONFIG", "/does/not/exist.toml")
    assert _faults() == ["TANGO_CLOUD_CONFIG: no such file: /does/not/exist.toml"]


def test_what_is_not_toml_is_a_fault_not_a_traceback() -> None:
    _write("prefix = ")
    assert "tango-cloud.toml" in _faults()[0]


@pytest.mark.parametrize("prefix", ["", "-a", "../etc", "a/b", "a b", "x" * 64])
def test_a_prefix_is_a_plain_word(prefix: str) -> None:
    assert any(fault.startswith("prefix") for fault in _faults(prefix=prefix))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TANGO_CLOUD_AWS__ZONES", "eu-central-1a,eu-central-1b"),
        ("TANGO_CLOUD_JOB", "none"),
        ("TANGO_CLOUD_PRICES", "aws=1"),
    ],
)
def test_a_variable_that_is_no_json_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TANGO_CLOUD_PREFIX", "prod")
    (fault,) = _faults()
    assert fault.startswith(f"{variable}: '{value}' will not do (expected JSON")


def test_the_state_folder_is_where_its_name_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load({"state_dir": "~/tango"}).state_dir == tmp_path / "tango"
    assert load({"state_dir": "here"}).state_dir == Path.cwd() / "here"
    assert "folder" in _faults(state_dir="")[0]
